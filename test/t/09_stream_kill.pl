# A stream whose processes are terminated, canceled and killed, and a server
# that goes down under it: nothing is lost and nothing is twice, what is to be
# seen says what happened, and the stream goes on where it can.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = create_node('streamkill', conf => "epro_etl.naptime = '100ms'\n");
create_fixture($node);
my $look = observer($node);
my $one = EproTest::Psql->new($node);

# A launcher, where the library is preloaded, brings a stream back by itself.
my $preloaded = 0;

my $to_all = '{"decode": 1, "deidentify": 1, "normalise": 1, "validate": 1, "store": 1}';
my @cuts = ([ 'one group', '{"store": 1}', 'store' ], [ 'two groups', '{"validate": 1, "store": 1}', 'validate', 'store' ],
	[ 'five groups', $to_all, qw(decode deidentify normalise validate store) ]);

parts('main', qw(signalled at_rest killed poison no_workers shut_down leaders_start));

$_->close foreach ($look, $one);
if (!@ARGV || grep { $_ eq 'preloaded' } @ARGV)
{
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'epro_etl'\n");
	$node->restart;
	$preloaded = 1;
	$look = observer($node);
	$one = EproTest::Psql->new($node);
	foreach my $part (\&signalled, \&killed, \&shut_down, \&starter_ends)
	{
		$part->();
	}
	$_->close foreach ($look, $one);
}
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal (?!9)/, 'no process crashed');
done_testing();

# After its leader has gone: without a launcher it is to be started again.
sub brought_back
{
	my ($name, $stages) = @_;

	if ($preloaded)
	{
		ok(await_stream($look, q{state = 'running' AND workers = workers_wanted}), "$name: the launcher has brought it back");
	}
	else
	{
		ok(await_stream($look, q{state IN ('down', 'not running') AND pid IS NULL}), "$name: it is down");
		is(stream_processes($look), 0, "$name: no process is left");
		is($look->query('SELECT count(*) FROM epro_etl.stat_channel'), 0, "$name: no channel is left");
		ok(start_stream($one, $stages), "$name: it can be started again");
	}
	return;
}

# Each kind of process, at points of a chunk's way.
sub signalled
{
	foreach my $cut ($preloaded ? $cuts[1] : @cuts)
	{
		my ($cut_name, $stages, @groups) = @$cut;
		foreach my $how ('pg_terminate_backend', $preloaded ? () : 'pg_cancel_backend')
		{
			foreach my $whom (undef, @groups)
			{
				foreach my $point ('within store', 'before store', 'at rest')
				{
					my $name = "$how of " . (defined $whom ? "the worker of $whom" : 'the leader') . ", $point, $cut_name" . ($preloaded ? ', preloaded' : '');

					one_signal($name, $stages, $how, $whom, $point);
				}
			}
		}
	}
	return;
}

sub one_signal
{
	my ($name, $stages, $how, $whom, $point) = @_;
	my $locker;

	restage($look);
	close_gate($look, 75) if $point eq 'within store';
	ok(start_stream($one, $stages), "$name: it runs");
	my $run = stream_shows($look, 'run_id');
	if ($point eq 'before store')
	{
		$locker = EproTest::Psql->new($node);
		$locker->query('BEGIN; LOCK TABLE mood_sink IN ACCESS EXCLUSIVE MODE');
	}
	stage($look, 1, 600, 7) if $point ne 'at rest';
	if ($point eq 'within store')
	{
		ok(await_gate($look), "$name: a chunk waits");
	}
	elsif ($point eq 'before store')
	{
		ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'mood_sink'::regclass AND NOT granted}), "$name: the sink is waited for");
	}
	my $pid = stream_pid($look, $whom);
	is($look->query("SELECT $how($pid)"), 't', "$name: done");
	if ($how eq 'pg_terminate_backend')
	{
		ok(until_true($look, "SELECT count(*) FROM pg_stat_get_activity($pid)", 0), "$name: it has gone");
	}
	if ($how eq 'pg_terminate_backend' && !defined $whom)
	{
		# the workers go with it, whatever they wait for
		ok(until_true($look, "SELECT status <> 'running' FROM epro_etl.run_history WHERE run_id = $run"), "$name: the ledger knows");
		open_gates($look);
		$locker->query('COMMIT') if $locker;
		brought_back($name, $stages);
	}
	elsif ($how eq 'pg_terminate_backend' || $point eq 'within store' && ($whom || '') eq (split /"/, $stages)[-2])
	{
		ok(await_stream($look, 'generations > 1 OR failures > 0'), "$name: the generation has failed");
		open_gates($look);
		$locker->query('COMMIT') if $locker;
	}
	else
	{
		open_gates($look);
		$locker->query('COMMIT') if $locker;
	}
	stage($look, 601, 700, 7);
	ok(await_arrived($look, $point eq 'at rest' ? 100 : 700), "$name: all arrives");
	ok(await_stream($look, q{state = 'running' AND in_flight = 0}), "$name: it runs");
	my $status = $look->query("SELECT status FROM epro_etl.run_history WHERE run_id = $run");
	like($status, $how eq 'pg_terminate_backend' ? qr/^failed$/ : qr/^(?:running|failed|canceled)$/, "$name: the first run in the ledger");
	stop_stream_ok($one, $name);
	oracle_ok($look, $name);
	$locker->close if $locker;
	return;
}

# In the midst of traffic, at no place in particular.
sub at_rest
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages, @groups) = @$cut;
		$name = "traffic, $name";

		restage($look);
		start_stream($one, $stages);
		my $writer = writer($node, 1, 3000, 7);
		foreach my $whom (@groups, @groups)
		{
			my $before = stream_shows($look, 'generations');
			my $pid = stream_pid($look, $whom);
			$look->query("SELECT pg_terminate_backend($pid)") if $pid;
			ok(await_stream($look, qq{generations > $before AND state = 'running'}), "$name: begins again after $whom");
			# the pause doubles with each failure in a row: no longer than this test
			last if $before > 3;
		}
		$writer->wait;
		ok(await_arrived($look, 3000), "$name: all has arrived");
		stop_stream_ok($one, $name);
		answers_ok($look, $name);
		oracle_ok($look, $name);
		$writer->close;
	}
	return;
}

# kill -9: the server restarts, and with it all memory.
sub killed
{
	foreach my $whom (undef, 'decode', 'store')
	{
		my $name = 'kill -9 of ' . (defined $whom ? "the worker of $whom" : 'the leader') . ($preloaded ? ', preloaded' : '');

		restage($look);
		close_gate($look, 75);
		start_stream($one, $to_all);
		stage($look, 1, 600, 7);
		ok(await_gate($look), "$name: a chunk waits");
		my $run = stream_shows($look, 'run_id');
		kill 'KILL', stream_pid($look, $whom);
		crashed();
		$look->query('DELETE FROM gate');
		is($look->query("SELECT status FROM epro_etl.run_history WHERE run_id = $run"), 'crashed', "$name: the ledger");
		brought_back($name, $to_all);
		stage($look, 601, 700, 7);
		ok(await_arrived($look, 700), "$name: all arrives");
		answers_ok($look, $name);
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);
	}
	return;
}

# Waits until the server has come back, and connects anew.
sub crashed
{
	$_->close foreach ($look, $one);
	await_back($node);
	$look = observer($node);
	$one = EproTest::Psql->new($node);
	return;
}

# An error that is not the data's: it waits, longer each time, and goes on by itself.
sub poison
{
	$look->query(q{CREATE TABLE trouble (state text);
		CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN
			SELECT state INTO s FROM public.trouble; IF FOUND THEN RAISE EXCEPTION 'trouble' USING ERRCODE = s; END IF; RETURN NEW; END $$;
		CREATE TRIGGER trouble BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION trouble()});
	foreach my $case ([ '58030', $cuts[0] ], [ '53100', $cuts[2] ], [ '57P03', $cuts[1] ])
	{
		my ($state, $cut) = @$case;
		my $name = "SQLSTATE $state, $cut->[0]";

		restage($look);
		start_stream($one, $cut->[1]);
		stage($look, 1, 100, 7);
		ok(await_arrived($look, 100), "$name: it works at first");
		$look->query("INSERT INTO trouble VALUES ('$state')");
		stage($look, 101, 200, 7);
		ok(await_stream($look, "state = 'waiting' AND failures = 1 AND sqlstate = '$state' AND next_try > since AND message <> ''"), "$name: it waits");
		is($look->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl stage worker'}), 0, "$name: without workers");
		is($look->query('SELECT count(*) FROM staging'), 100, "$name: all is in staging");
		ok(await_stream($look, 'failures = 3'), "$name: it tries again");
		ok(await_stream($look, q{state = 'waiting' AND failures = 3 AND next_try - since > interval '1.5 s'}), "$name: later each time");
		is($look->query(qq{SELECT count(*) > 2 AND bool_and(status = 'failed' AND sqlstate = '$state') FROM epro_etl.run_history WHERE status NOT IN ('running') }), 't', "$name: each try is in the ledger");
		$look->query('DELETE FROM trouble');
		ok(await_arrived($look, 200), "$name: it goes on by itself");
		ok(await_stream($look, q{state = 'running'}), "$name: it runs");
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);

		# one that waits can be stopped
		start_stream($one, $cut->[1]);
		$look->query("INSERT INTO trouble VALUES ('$state')");
		stage($look, 201, 300, 7);
		ok(await_stream($look, q{state = 'waiting' AND failures > 1}), "$name: it waits again");
		stop_stream_ok($one, "$name, while it waits");
		is($look->query('SELECT count(*) FROM staging'), 100, "$name: the rest is in staging");
		$look->query('DELETE FROM trouble');
		start_stream($one, $cut->[1]);
		is(stream_shows($look, 'failures'), 0, "$name: a new start has not failed");
		ok(await_arrived($look, 300), "$name: the next does the rest");
		stop_stream_ok($one, "$name, the rest");
		oracle_ok($look, "$name, the rest");
	}
	$look->query('DROP TRIGGER trouble ON mood_sink; DROP TABLE trouble');
	return;
}

# All background workers are taken, or all but a few.
sub no_workers
{
	$node->append_conf('postgresql.conf', "max_worker_processes = 4\n");
	$_->close foreach ($look, $one);
	$node->restart;
	$look = observer($node);
	$one = EproTest::Psql->new($node);
	# the logical replication launcher has one of them
	restage($look, 1, 100, 7);
	$one->query(qq{SELECT epro_etl.start_stream('mood', '$to_all')});
	ok(await_stream($look, q{state = 'waiting' AND sqlstate = '53000' AND message ~ 'workers'}), 'a worker for each group is not to be had: it waits and says so');
	is($look->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl stage worker'}), 0, 'a worker for each group is not to be had: none is left');
	is($look->query('SELECT count(*) FROM staging'), 100, 'a worker for each group is not to be had: nothing has moved');
	stop_stream_ok($one, 'a worker for each group is not to be had');
	$one->query(q{SELECT epro_etl.start_stream('mood', '{"validate": 3, "store": 3}')});
	ok(await_arrived($look, 100), 'fewer workers: it works');
	is(stream_shows($look, 'state, workers, workers_wanted'), 'running|2|6', 'fewer workers: and says so');
	is(sqlstate(($one->try(q{SELECT epro_etl.run('mood', workers => 2)}))[1]), '', 'fewer workers: a batch finds its way');
	stop_stream_ok($one, 'fewer workers');
	oracle_ok($look, 'fewer workers');
	$look->query(q{SELECT epro_etl.create_pipeline('second', 'staging', '{"id": "response_id"}'); SELECT epro_etl.add_sink('second', 'MOOD', 'mood_sink')});
	$one->query(q{SELECT epro_etl.start_stream('second', '{"validate": 1, "store": 1}')});
	ok(until_true($look, q{SELECT state FROM epro_etl.stat_stream WHERE pipeline = 'second'}, 'running'), 'no worker is free: another stream has them');
	my (undef, $error) = $one->try(q{SELECT epro_etl.start_stream('mood')});
	is(sqlstate($error), '53000', 'no worker is free: refused');
	is(stream_shows($look, 'state'), '', 'no worker is free: no stream');
	$one->query(q{SELECT epro_etl.stop_stream('second')});
	start_stream($one, '{"store": 1}');
	stage($look, 101, 200);
	ok(await_arrived($look, 200), 'a worker is free: it works');
	stop_stream_ok($one, 'a worker is free');
	$look->query(q{SELECT epro_etl.drop_pipeline('second')});
	oracle_ok($look, 'no worker is free');

	$node->append_conf('postgresql.conf', "max_worker_processes = 16\n");
	$_->close foreach ($look, $one);
	$node->restart;
	$look = observer($node);
	$one = EproTest::Psql->new($node);
	return;
}

# What looks for streams when the server starts is ended before it has: another comes.
sub starter_ends
{
	my $name = 'a starter is terminated';

	restage($look);
	$_->close foreach ($look, $one);
	$node->append_conf('postgresql.conf', "max_prepared_transactions = 1\n");
	$node->restart;
	$look = observer($node);
	$one = EproTest::Psql->new($node);
	start_stream($one, $to_all);
	$look->query(q{BEGIN; LOCK TABLE epro_etl.stream; PREPARE TRANSACTION 'held'});
	$_->close foreach ($look, $one);
	$node->restart;
	$look = observer($node);
	$one = EproTest::Psql->new($node);
	my $waits = q{FROM pg_stat_activity WHERE backend_type = 'epro_etl starter' AND datname = 'postgres' AND wait_event_type = 'Lock'};
	ok(until_true($look, "SELECT count(*) $waits", 1), "$name: it waited for a lock");
	is($look->query("SELECT pg_terminate_backend(pid, 10000) $waits"), 't', "$name: it is gone");
	is($look->query('SELECT count(*) FROM epro_etl.stream_status()'), 0, "$name: no stream");
	$look->query(q{ROLLBACK PREPARED 'held'});
	ok(await_stream($look, q{state = 'running' AND workers = workers_wanted}), "$name: another has brought the stream back");
	stage($look, 1, 100, 7);
	ok(await_arrived($look, 100), "$name: all arrives");
	stop_stream_ok($one, $name);
	oracle_ok($look, $name);
	return;
}

# The server is stopped under it.
sub shut_down
{
	foreach my $mode ('fast', 'immediate')
	{
		foreach my $gate (0, 1)
		{
			my $name = "$mode shutdown" . ($gate ? ' within a chunk' : ' in traffic') . ($preloaded ? ', preloaded' : '');

			restage($look);
			close_gate($look, 75) if $gate;
			start_stream($one, $to_all);
			my $writer;
			if ($gate)
			{
				stage($look, 1, 1000, 7);
				ok(await_gate($look), "$name: a chunk waits");
			}
			else
			{
				$writer = writer($node, 1, 30000, 7);
				ok(until_true($look, 'SELECT count(*) > 200 FROM mood_sink'), "$name: in traffic");
			}
			my $run = stream_shows($look, 'run_id');
			my $began = time();
			$node->stop($mode);
			cmp_ok(time() - $began, '<', 20, "$name: it does not take long");
			$_->close foreach grep { defined } ($look, $one, $writer);
			$node->start;
			$look = observer($node);
			$one = EproTest::Psql->new($node);
			$look->query('DELETE FROM gate');
			like($look->query("SELECT status FROM epro_etl.run_history WHERE run_id = $run"), $mode eq 'fast' ? qr/^(?:failed|crashed)$/ : qr/^crashed$/, "$name: the ledger");
			brought_back($name, $to_all);
			ok(await_arrived($look, $look->query('SELECT count(*) FROM put_in')), "$name: all arrives");
			answers_ok($look, $name);
			stop_stream_ok($one, $name);
			oracle_ok($look, $name);
		}
	}
	return;
}

# Who starts it is terminated, or killed, before its commit.
sub leaders_start
{
	restage($look, 1, 100);
	my $starter = EproTest::Psql->new($node);
	$starter->query(q{BEGIN; SELECT epro_etl.start_stream('mood')});
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl stream'}, 1), 'starter terminated: the leader waits');
	$look->query('SELECT pg_terminate_backend(' . $starter->backend . ')');
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), 'starter terminated: no process is left');
	is(stream_shows($look, 'state'), '', 'starter terminated: no stream');
	is($look->query('SELECT count(*) FROM epro_etl.stream_status()'), 0, 'starter terminated: no entry is left');
	$starter->close;

	# the leader goes before the starter has committed
	$one->query(q{BEGIN; SELECT epro_etl.start_stream('mood')});
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl stream'}, 1), 'leader terminated before it begins: it waits');
	$look->query('SELECT pg_terminate_backend(' . stream_pid($look) . ')');
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), 'leader terminated before it begins: it has gone');
	$one->query('COMMIT');
	like(stream_shows($look, 'state'), qr/^(?:down|not running)$/, 'leader terminated before it begins: what is to be seen is true');
	ok(start_stream($one, undef), 'leader terminated before it begins: it can be started');
	ok(await_arrived($look, 100), 'leader terminated before it begins: it works');
	stop_stream_ok($one, 'leader terminated before it begins');

	# canceled before it begins: it begins all the same
	$one->query(q{BEGIN; SELECT epro_etl.start_stream('mood')});
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl stream'}, 1), 'leader canceled before it begins: it waits');
	$look->query('SELECT pg_cancel_backend(' . stream_pid($look) . ')');
	sleep(0.2);
	$one->query('COMMIT');
	stage($look, 101, 200);
	my $state = stream_shows($look, 'state');
	if ($state =~ /down|not running/)
	{
		start_stream($one, undef);
	}
	ok(await_arrived($look, 200), "leader canceled before it begins ($state): it works");
	stop_stream_ok($one, 'leader canceled before it begins');

	# canceled while it reads what it is to do: it tries again; with a long nap it
	# does not read it before the worker is missed
	my $locker = EproTest::Psql->new($node);
	$node->append_conf('postgresql.conf', "epro_etl.naptime = '1h'\n");
	$node->reload;
	ok(until_true($look, q{SELECT current_setting('epro_etl.naptime')}, '1h'), 'leader canceled while it reads its plan: a long nap');
	start_stream($one, undef);
	$locker->query('BEGIN; LOCK TABLE epro_etl.pipeline IN ACCESS EXCLUSIVE MODE');
	my $pid = $look->query(q{SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl stage worker' LIMIT 1});
	$look->query("SELECT pg_terminate_backend($pid)");
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl stage worker'}, 0), 'leader canceled while it reads its plan: between two generations');
	$pid = $look->query(q{SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl stream'});
	ok(until_true($look, "SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted AND relation = 'epro_etl.pipeline'::regclass", 1), 'leader canceled while it reads its plan: it waits');
	$look->query("SELECT pg_cancel_backend($pid)");
	ok(until_true($look, "SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted", 0), 'leader canceled while it reads its plan: no more');
	$locker->query('ROLLBACK');
	stage($look, 201, 300, 7);
	ok(await_arrived($look, 300), 'leader canceled while it reads its plan: it goes on');
	stop_stream_ok($one, 'leader canceled while it reads its plan');
	$node->append_conf('postgresql.conf', "epro_etl.naptime = '100ms'\n");
	$node->reload;
	$locker->close;
	oracle_ok($look, 'leaders_start');
	return;
}
