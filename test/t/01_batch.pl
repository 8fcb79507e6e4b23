# A run with workers: the same result for any number of them, progress to be
# seen meanwhile, and every way of waiting for it, or not waiting.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

my $node = create_node('batch');
create_fixture($node, gates => 0);
my $look = observer($node);
my $workers_now = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'};

equal_results();
$look->query('CREATE TRIGGER at_gate BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION at_gate()');
progress();
ledger();
start_and_wait();
wait_elsewhere();
wait_elsewhere_before_all_have_come();
cancel_elsewhere();
two_runs_of_a_session();
owner_disconnects();
job();
too_many_rejects();
dry_run();
refused_before_it_starts();

$look->close;
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/,
	'no process crashed');
done_testing();

# 0, 1, 2 and 4 workers: the same rows in the same places.
sub equal_results
{
	my $expected;

	foreach my $workers (0, 1, 2, 4)
	{
		restage($look, 1, 4000, 7);
		my $row = $look->query(
			"SELECT status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers FROM epro_etl.run('mood', workers => $workers)");
		is($row, "succeeded|4000|3429|0|571|0|0|0|$workers", "$workers workers: the run's row");
		my $content = $look->query(q{
			SELECT md5(string_agg(concat_ws(',', source_id, study, subject_key, form, form_version, visit, authored, mood01, mood02, note), ';' ORDER BY source_id)) FROM mood_sink
			UNION ALL SELECT md5(string_agg(concat_ws(',', source_id, form, original), ';' ORDER BY source_id)) FROM epro_etl.quarantine
			UNION ALL SELECT md5(string_agg(concat_ws(',', source_id, form, location, rule, kind, severity, message), ';' ORDER BY source_id)) FROM epro_etl.finding});
		$expected = $content unless defined $expected;
		is($content, $expected, "$workers workers: sink, quarantine and findings as with 0");
		is($look->query('SELECT count(*) FROM mood_sink s JOIN put_in p ON p.response_id = s.source_id'
				  . q{ WHERE s.mood01 = (p.payload->>'mood01')::int AND s.mood02 = (p.payload->>'mood02')::int AND s.note = p.payload->>'note'}),
			3429, "$workers workers: every answer as it was given");
		oracle_ok($look, "$workers workers");
	}
	return;
}

# Two workers stand in chunks; what the views show is exact.
sub progress
{
	restage($look, 1, 600, 7);
	close_gate($look, 225);
	my $caller = EproTest::Psql->new($node);
	$caller->send(q{SELECT status FROM epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), 'progress: the worker is in its fifth chunk');
	my $run = $look->query('SELECT max(run_id) FROM epro_etl.run_ledger');
	my $blocks = $look->query(q{SELECT pg_relation_size('staging') / 8192});
	is( $look->query('SELECT run_id, pipeline, worker, phase, tuples_processed, tuples_excluded, blocks_total FROM epro_etl.stat_progress'),
		"$run|mood|1|storing|200|28|$blocks",
		'progress: what stat_progress shows');
	is($look->query('SELECT blocks_done > 0 AND blocks_done <= blocks_total AND since <= clock_timestamp() FROM epro_etl.stat_progress'),
		't', 'progress: blocks and time');
	is( $look->query(q{SELECT a.application_name, a.state, a.query, a.usename FROM pg_stat_activity a JOIN epro_etl.stat_progress USING (pid) WHERE backend_type = 'epro_etl worker'}),
		"epro_etl run $run worker 1|active|epro_etl: run $run of pipeline mood|" . $look->query('SELECT current_user'),
		'progress: what pg_stat_activity shows');
	is($look->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' AND a::text ~ 'note of|S-[0-9]'} =~ s/pg_stat_activity/pg_stat_activity a/r),
		0, 'progress: no answer and no subject in pg_stat_activity');
	is(status_of($look, 'status, claimed, loaded, rejected'), 'running|200|172|28', 'progress: the ledger as of the last commit');
	open_gates($look);
	is(($caller->wait)[0], 'succeeded', 'progress: the run succeeds');
	is($look->query('SELECT count(*) FROM epro_etl.stat_progress'), 0, 'progress: nothing to see afterwards');

	restage($look, 1, 600, 7);
	close_gate($look, $_) foreach (30, 570);
	$caller->send(q{SELECT status, workers FROM epro_etl.run('mood', workers => 2)});
	ok(await_gate($look, 2), 'progress: two workers are in chunks');
	is($look->query('SELECT count(DISTINCT pid), count(*), sum(worker), bool_and(phase = \'storing\') FROM epro_etl.stat_progress'),
		'2|2|3|t', 'progress: a row a worker');
	is($look->query('SELECT sum(tuples_processed) = (SELECT claimed FROM epro_etl.run_history ORDER BY run_id DESC LIMIT 1) FROM epro_etl.stat_progress'),
		't', 'progress: the live view adds up to the ledger');
	open_gates($look);
	is(($caller->wait)[0], 'succeeded|2', 'progress: the run of two succeeds');
	oracle_ok($look, 'progress');
	$caller->close;
	return;
}

sub ledger
{
	restage($look, 1, 600, 7);
	$look->query('CREATE ROLE loader');
	$look->query('GRANT ALL ON staging, mood_sink TO loader; GRANT USAGE ON SCHEMA epro_etl TO loader;'
		  . ' GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO loader');
	my $caller = EproTest::Psql->new($node);
	my $me = $caller->query('SELECT session_user');
	$caller->query('SET ROLE loader');
	my $row = $caller->query(q{SELECT run_id, status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers FROM epro_etl.run('mood', workers => 2, reason => 'nightly load')});
	is( $look->query('SELECT run_id, status, claimed, loaded, warned, rejected, duplicate, deferred, remaining, workers FROM epro_etl.run_history'),
		$row, 'ledger: as the caller was told');
	is( $look->query(q{SELECT pipeline, source, reason, session_user_name, current_user_name, batch_size, dry_run, sqlstate IS NULL, versions->'MOOD'->>'version', finished_at > started_at FROM epro_etl.run_history}),
		"mood|public.staging|nightly load|$me|loader|50|f|t|1|t", 'ledger: who, why, which versions');
	is($look->query('SELECT bool_and(agrees) FROM epro_etl.run_history h, epro_etl.reconcile(h.run_id)'), 't', 'ledger: reconciles');
	oracle_ok($look, 'ledger');
	$caller->close;
	return;
}

sub start_and_wait
{
	restage($look, 1, 600, 7);
	close_gate($look, 225);
	my $caller = EproTest::Psql->new($node);
	my $run = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 1)});
	like($run, qr/^\d+$/, 'start_run() returns at once, with the number');
	ok(await_gate($look), 'start_run(): the worker is in its chunk');
	is( $caller->query("SELECT run_id, status, claimed, remaining IS NOT NULL FROM epro_etl.wait_run($run, timeout => '50ms')"),
		"$run|running|200|t", 'wait_run() with a timeout: as it stands');
	is($caller->query($workers_now), 1, 'wait_run() with a timeout: the run goes on');
	$caller->send("SELECT run_id, status, claimed, loaded, rejected, remaining FROM epro_etl.wait_run($run)");
	open_gates($look);
	is(($caller->wait)[0], "$run|succeeded|600|515|85|0", 'wait_run(): the row of the run');
	is($caller->query($workers_now), 0, 'wait_run(): no worker is left');
	is($caller->query("SELECT run_id, status, claimed, loaded, rejected, remaining FROM epro_etl.wait_run($run)"),
		"$run|succeeded|600|515|85|0", 'wait_run() once more: the same, from the ledger');
	is(sqlstate(($caller->try('SELECT epro_etl.wait_run(999999)'))[1]), '42704', 'wait_run() of no run');
	oracle_ok($look, 'start_run() and wait_run()');
	$caller->close;
	return;
}

sub wait_elsewhere
{
	restage($look, 1, 600, 7);
	close_gate($look, 225);
	my $caller = EproTest::Psql->new($node);
	my $other = EproTest::Psql->new($node);
	my $run = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 2)});
	ok(await_gate($look), 'wait_run() elsewhere: a worker is in its chunk');
	is($other->query("SELECT status FROM epro_etl.wait_run($run, timeout => '50ms')"), 'running', 'wait_run() elsewhere, with a timeout');
	$other->send("SELECT status, claimed, remaining FROM epro_etl.wait_run($run)");
	ok( until_true($look, q{SELECT state = 'active' AND wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = } . $other->backend),
		'wait_run() elsewhere: waits');
	open_gates($look);
	is(($other->wait)[0], 'succeeded|600|0', 'wait_run() elsewhere: the row of the run');
	is($caller->query("SELECT status FROM epro_etl.wait_run($run)"), 'succeeded', 'wait_run() by its own session afterwards');
	oracle_ok($look, 'wait_run() elsewhere');
	$_->close foreach ($caller, $other);
	return;
}

# Whoever waits for a run must not keep its last worker from joining it. The
# worker is stopped by the operating system for the moment that matters.
sub wait_elsewhere_before_all_have_come
{
	my $name = 'wait_run() elsewhere while a worker is still coming';

	restage($look, 1, 600);
	close_gate($look, 225);
	my $caller = EproTest::Psql->new($node);
	my $other = EproTest::Psql->new($node);
	my $locker = EproTest::Psql->new($node);
	my $run = $look->query('SELECT last_value + 1 FROM epro_etl.run_ledger_run_id_seq');
	$locker->query('BEGIN; LOCK TABLE epro_etl.run_ledger IN SHARE ROW EXCLUSIVE MODE');
	$caller->send(q{SELECT status, workers, claimed FROM epro_etl.run('mood', workers => 2)});
	ok( until_true($look, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' AND wait_event_type IN ('Lock', 'Extension')}, 2),
		"$name: one opens the run, the other waits for that");
	my $late = $look->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' AND wait_event_type = 'Extension'});
	kill 'STOP', $late;
	$locker->query('ROLLBACK');
	ok(await_gate($look), "$name: the first is at work");
	$other->send("SELECT status FROM epro_etl.wait_run($run)");
	ok( until_true($look, q{SELECT state = 'active' AND wait_event_type IN ('Lock', 'Extension') FROM pg_stat_activity WHERE pid = } . $other->backend),
		"$name: another session waits for the run");
	kill 'CONT', $late;
	ok(until_true($look, "SELECT count(*) FROM pg_stat_get_activity($late) WHERE wait_event_type = 'Extension'", 0),
		"$name: the second goes on");
	open_gates($look);
	my ($out, $error) = $caller->wait;
	is($out, 'succeeded|2|600', "$name: the run succeeds");
	is($error, '', "$name: without an error");
	is(($other->wait)[0], 'succeeded', "$name: and is waited for");
	oracle_ok($look, $name);
	$_->close foreach ($caller, $other, $locker);
	return;
}

sub cancel_elsewhere
{
	restage($look, 1, 600, 7);
	close_gate($look, $_) foreach (30, 570);
	my $caller = EproTest::Psql->new($node);
	my $run = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 2)});
	ok(await_gate($look, 2), 'cancel_run(): two workers are in chunks');
	is($look->query("SELECT epro_etl.cancel_run($run)"), 't', 'cancel_run(): there was a run to cancel');
	my ($out, $error) = $caller->try("SELECT epro_etl.wait_run($run);\n$workers_now");
	is(sqlstate($error), '57014', 'cancel_run(): whoever waits is told');
	is($out, 0, 'cancel_run(): no worker survived');
	is(status_of($look), 'canceled', 'cancel_run(): status');
	is($look->query("SELECT epro_etl.cancel_run($run)"), 'f', 'cancel_run() once more: nothing to cancel');
	open_gates($look);
	oracle_ok($look, 'cancel_run()');

	# the caller of run() is told as well, and nothing but a wait is needed
	close_gate($look, 30);
	$caller->send(q{SELECT status FROM epro_etl.run('mood', workers => 2)});
	ok(await_gate($look, 1), 'cancel_run() of run(): a worker is in its chunk');
	$look->query('SELECT epro_etl.cancel_run(max(run_id)) FROM epro_etl.run_ledger');
	($out, $error) = $caller->wait;
	is(sqlstate($error), '57014', 'cancel_run() of run(): the caller is told');
	is(survivors($look), 0, 'cancel_run() of run(): no worker survived');
	open_gates($look);
	oracle_ok($look, 'cancel_run() of run()');
	$caller->close;
	return;
}

sub two_runs_of_a_session
{
	restage($look, 1, 1200);
	close_gate($look, 25);
	my $caller = EproTest::Psql->new($node);
	my $first = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 1)});
	ok(await_gate($look), 'two runs of a session: the first is in its chunk');
	my $second = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 1)});
	is($caller->query("SELECT status, claimed, remaining FROM epro_etl.wait_run($second)"), 'succeeded|1150|50',
		'two runs of a session: the second does what is free');
	is($caller->query("SELECT status FROM epro_etl.wait_run($first, '20ms')"), 'running', 'two runs of a session: the first waits');
	open_gates($look);
	is($caller->query("SELECT status, claimed FROM epro_etl.wait_run($first)"), 'succeeded|50', 'two runs of a session: the first ends');
	oracle_ok($look, 'two runs of a session');
	$caller->close;
	return;
}

sub owner_disconnects
{
	restage($look, 1, 600, 7);
	close_gate($look, $_) foreach (30, 570);
	my $caller = EproTest::Psql->new($node);
	my $owner = $caller->backend;
	my $run = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 2)});
	ok(await_gate($look, 2), 'the owner goes: two workers are in chunks');
	$caller->close;
	ok(until_true($look, "SELECT count(*) FROM pg_stat_get_activity($owner)", 0), 'the owner goes');
	is(survivors($look), 0, 'the owner goes: no worker survived');
	is(status_of($look), 'canceled', 'the owner goes: status');
	open_gates($look);
	oracle_ok($look, 'the owner goes');
	return;
}

sub job
{
	my $caller = EproTest::Psql->new($node);
	my $xmin = 'SELECT backend_xmin IS NULL, backend_xid IS NULL FROM pg_stat_activity WHERE pid = ' . $caller->backend;

	restage($look, 1, 600, 7);
	close_gate($look, 225);
	$caller->send(q{CALL epro_etl.run_job('mood', workers => 1)});
	ok(await_gate($look), 'run_job(): the worker is in its chunk');
	is($look->query($xmin), 't|t', 'run_job(): the waiting caller holds no snapshot');
	open_gates($look);
	my ($out, $error) = $caller->wait;
	is($error, '', 'run_job(): no error');
	is(status_of($look, 'status, claimed'), 'succeeded|600', 'run_job(): status');
	oracle_ok($look, 'run_job()');

	# where it may not commit it waits all the same
	foreach my $where ('BEGIN; %s; COMMIT', 'DO $$ BEGIN %s; END $$', 'DO $$ BEGIN BEGIN %s; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$')
	{
		restage($look, 1, 600, 7);
		close_gate($look, 225);
		$caller->send(sprintf $where, q{CALL epro_etl.run_job('mood', workers => 1)});
		ok(await_gate($look), "$where: the worker is in its chunk");
		ok($caller->busy, "$where: the caller waits");
		open_gates($look);
		($out, $error) = $caller->wait;
		is($error, '', "$where: no error");
		is(status_of($look, 'status, claimed'), 'succeeded|600', "$where: status");
		is($look->query($workers_now), 0, "$where: no worker is left");
		oracle_ok($look, "run_job() in $where");
	}

	restage($look, 1, 600, 7);
	($out, $error) = $caller->try(q{CALL epro_etl.run_job('mood', workers => 1, max_rejects => 20)});
	is(sqlstate($error), 'EP007', 'run_job() that stops: an error for the scheduler');
	is(status_of($look, 'status, claimed'), 'stopped|150', 'run_job() that stops: what was committed stays');
	oracle_ok($look, 'run_job() that stops');

	# canceled while it waits outside a transaction
	restage($look, 1, 600, 7);
	close_gate($look, 225);
	$caller->send(qq{CALL epro_etl.run_job('mood', workers => 1);\n$workers_now});
	ok(await_gate($look), 'run_job() canceled: the worker is in its chunk');
	$look->query('SELECT pg_cancel_backend(' . $caller->backend . ')');
	($out, $error) = $caller->wait;
	is(sqlstate($error), '57014', 'run_job() canceled: the SQLSTATE');
	is($out, 0, 'run_job() canceled: no worker survived');
	open_gates($look);
	is(status_of($look), 'canceled', 'run_job() canceled: status');
	oracle_ok($look, 'run_job() canceled');
	$caller->close;
	return;
}

# Stops claiming; with one worker the chunk at which it does is known: 7
# rejects in each of the first two chunks of 50, and so on.
sub too_many_rejects
{
	restage($look, 1, 600, 7);
	is( $look->query(q{SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('mood', workers => 1, max_rejects => 20)}),
		'stopped|150|129|21|450', 'max_rejects: stops after the chunk that is too many');
	is(status_of($look, 'status, claimed, rejected'), 'stopped|150|21', 'max_rejects: the ledger says so');
	is($look->query('SELECT count(*) FROM staging'), 450, 'max_rejects: the rest is in staging');
	is(status_of($look, 'remaining'), 450, 'max_rejects: the ledger counts it');
	oracle_ok($look, 'max_rejects');
	is($look->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2, max_rejects => 64)}), 'succeeded|450', 'max_rejects: as many as that may be');
	oracle_ok($look, 'max_rejects, after the next run');

	restage($look, 1, 600, 7);
	is( $look->query(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 1, max_reject_ratio => 0.1)}),
		'stopped|100|500', 'max_reject_ratio: judged from a hundred responses on');
	is($look->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 1, max_reject_ratio => 0.2)}), 'succeeded|500',
		'max_reject_ratio: below it');
	oracle_ok($look, 'max_reject_ratio');

	restage($look, 1, 2000, 7);
	is( $look->query(q{SELECT status, claimed < 2000, claimed + remaining FROM epro_etl.run('mood', workers => 2, max_rejects => 20)}),
		'stopped|t|2000', 'max_rejects with two workers: nothing is lost from sight');
	oracle_ok($look, 'max_rejects with two workers');
	return;
}

sub dry_run
{
	restage($look, 1, 600, 7);
	is( $look->query(q{SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('mood', workers => 2, dry_run => true)}),
		'succeeded|600|515|85|0', 'dry_run: what would happen');
	is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.quarantine), (SELECT count(*) FROM epro_etl.finding)'),
		'600|0|0|85', 'dry_run: nothing moved, and the findings are there');
	oracle_ok($look, 'dry_run');
	return;
}

sub refused_before_it_starts
{
	restage($look, 1, 100);
	foreach my $call (
		[ q{epro_etl.run('nosuch')}, '42704' ],
		[ q{epro_etl.run(NULL)}, '22004' ],
		[ q{epro_etl.run('mood', workers => -1)}, '22023' ],
		[ q{epro_etl.run('mood', workers => 10000)}, '22023' ],
		[ q{epro_etl.run('mood', max_rejects => -1)}, '22023' ],
		[ q{epro_etl.run('mood', max_reject_ratio => 1.5)}, '22023' ],
		[ q{epro_etl.run('mood', max_reject_ratio => 'NaN')}, '22023' ],
		[ q{epro_etl.run('mood', timeout => '0')}, '22023' ],
		[ q{epro_etl.run('mood', timeout => '-1 day')}, '22023' ],
		[ q{epro_etl.start_run('nosuch')}, '42704' ],
		[ q{epro_etl.wait_run(NULL)}, '22004' ])
	{
		my ($out, $error) = $look->try("SELECT $call->[0]");
		is(sqlstate($error), $call->[1], "$call->[0] is refused");
	}
	is($look->query('SELECT count(*) FROM epro_etl.run_ledger'), 0, 'what is refused leaves no run');

	restage($look);
	is($look->query(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 4)}), 'succeeded|0|0', 'an empty staging table');
	oracle_ok($look, 'an empty staging table');
	return;
}
