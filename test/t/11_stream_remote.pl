# Sinks on a second server, reached through postgres_fdw: what is for it arrives
# there once, whatever happens to it. While it is away, responses that need it
# are held and others go on arriving; if it is not required, what is for it
# waits in the outbox. What it refuses of itself goes to quarantine, alone.
#
# With a unique key there and on_duplicate => 'ignore', a connection that is
# lost at the commit loses nothing and doubles nothing. Without either, a
# response can be there twice: it is sent again, since nobody can say whether it
# has arrived.
#
# What the other server writes into its own log is its own affair.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use RemoteTest;
use Test::More;
use Time::HiRes qw(sleep time);

# In no other text of this test: what is found of it has leaked.
my $marker = 'Zq8Planted';

my $far = create_far('far');
# naptime is how often what is held is tried again
my $node = create_node('here', conf => <<'CONF');
epro_etl.naptime = '100ms'
epro_etl.batch_size = 500
epro_etl.sink_timeout = '1s'
CONF
create_flow($node, $far);
my $look = reach($node);
my $two = reach($node);
my $there = far_session($far);
my $offset = 0;

my $one_storing = '{"store": 1}';
my @cuts = ([ 'not cut', undef ], [ 'three groups', '{"deidentify": 2, "validate": 2, "store": 2}' ]);
my @ways = ([ 'required', "on_duplicate => 'ignore'", 1 ], [ 'not required', "on_duplicate => 'ignore', required => false", 0 ]);

my @parts = qw(flows few_statements stopped stopped_and_run sink_stays ends_while_away lost_inline killed lost_at_release lost_at_commit in_doubt refuses refused_from_outbox
  refuses_at_commit late slow slow_at_commit silent two_servers unfit no_place dropped_here planted);
foreach my $part (@ARGV ? @ARGV : @parts)
{
	note("part $part");
	no strict 'refs';
	&{"main::$part"}();
}

$_->close foreach ($look, $two, $there);
$node->stop('fast');
$far->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'no process crashed');
done_testing();

sub flows
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;

		flow_anew($look, $there);
		put($look, 1, 200);
		ok(begin_stream($look, $stages), "$name: it runs");
		put($two, 201 + 200 * $_, 400 + 200 * $_) foreach (0 .. 5);
		ok(settled($look), "$name: all has left");
		is($look->query('SELECT (SELECT count(*) FROM mood_wide), (SELECT count(DISTINCT source_id) FROM mood_long), (SELECT count(*) FROM mood_north), (SELECT count(*) FROM mood_far), (SELECT count(*) FROM ae_wide)'),
			'1260|1260|420|630|140', "$name: each where it belongs");
		is($there->query('SELECT count(*), count(DISTINCT source_id), min(severity) FROM mood_far'), '630|630|2', "$name: by severity");
		is($look->query(q{SELECT string_agg(DISTINCT site, ' ') FROM mood_north}), 'N', "$name: by site");
		is(flow_shows($look, 'stored, held, failures'), '1400|0|0', "$name: stat_stream");
		end_stream($look, $name);
		is(status_of($look, 'status, claimed, loaded, rejected, duplicate'), 'succeeded|1400|1400|0|0', "$name: the ledger");
		sinks_ok($look, $name);
	}
	return;
}

# With batch_size on the foreign server, rows go there together.
sub few_statements
{
	flow_anew($look, $there);
	begin_stream($look, $one_storing);
	$there->query('SELECT pg_stat_statements_reset()');
	put($look, 1, 1000, '{"severity": 3}');
	ok(settled($look), 'few statements: all has left');
	my ($calls, $rows) = split /\|/, far_statements($there);
	is($rows, 900, 'few statements: rows');
	cmp_ok($calls, '<=', 100, 'few statements: statements');
	note("$rows rows in $calls statements");
	end_stream($look, 'few statements');
	sinks_ok($look, 'few statements');
	return;
}

# What is done to the other server is seen by the stream, harms only what is for
# it, and is over when it is mended. The SQLSTATE is the one that the log tells.
sub breaks
{
	my ($name, $break, $mend, $sqlstate, %args) = @_;

	foreach my $way (@ways)
	{
		my ($kind, $with, $required) = @$way;
		my $what = "$name, $kind";

		flow_anew($look, $there, $with);
		begin_stream($look, $one_storing);
		put($look, 1, 40);
		ok(settled($look), "$what: it flows");
		remember();
		$break->();
		put($look, 41, 240, $args{more});
		# what is for the other server has a severity of 2 or more
		my $waits = $look->query(q{SELECT count(*) FROM put_in WHERE response_id > 40 AND form = 'MOOD' AND (payload->>'severity')::int >= 2});
		ok(arrives_here(200 - ($required ? $waits : 0), 40), "$what: others go on arriving");
		if ($required)
		{
			ok(flow_is($look, 'held > 0'), "$what: some are held");
			is($look->query('SELECT count(*) FROM staging'), $waits, "$what: those that need it are staged");
			# one that is not for it passes all that are held
			put($look, 247, 247);
			ok(arrives_here(201 - $waits, 40), "$what: others pass");
		}
		else
		{
			is($look->query('SELECT count(*), count(refused), count(DISTINCT source_id) FROM epro_etl.outbox'), "$waits|0|$waits", "$what: the outbox has what is for it");
			is($look->query('SELECT count(*) FROM staging'), 0, "$what: nothing is staged any more");
		}
		ok(log_has(qr/sink public\.mood_far is away \(SQLSTATE $sqlstate\), and is tried again in 1000 ms/), "$what: the log says so")
		  or diag(logged());
		# tried again after a pause that doubles
		ok(log_has(qr/is away \(SQLSTATE $sqlstate\), and is tried again in 2000 ms/), "$what: twice") if $required;
		is($look->query('SELECT count(*) FROM epro_etl.quarantine'), 0, "$what: nothing is rejected for it");
		is(flow_shows($look, 'state, failures, generations'), 'running|0|1', "$what: the stream has gone on");
		$args{meanwhile}->($what) if $args{meanwhile};
		$mend->();
		ok(settled($look), "$what: mended, all arrives") or diag(logged());
		ok(flow_is($look, 'held = 0 AND in_flight = 0'), "$what: none is held");
		end_stream($look, $what);
		sinks_ok($look, $what);
		$look->query('SELECT count(*) FROM mood_far');
	}
	return;
}

sub stopped
{
	breaks('stopped', sub { stop_far('fast') }, sub { start_far() }, '08[0-9A-Z]{3}');
	return;
}

# A batch ends with the error, if it is required; else its outbox is delivered by hand.
sub stopped_and_run
{
	foreach my $workers (0, 2)
	{
		flow_anew($look, $there);
		put($look, 1, 100);
		stop_far('fast');
		my (undef, $error) = $look->try("SELECT epro_etl.run('flow', workers => $workers)");
		like(sqlstate($error), qr/^08...$/, "run, $workers workers, required: ends with an error") or diag($error);
		is($look->query('SELECT count(*) FROM staging'), 100, "run, $workers workers, required: all is staged");
		start_far();
		is($look->query("SELECT status, loaded FROM epro_etl.run('flow', workers => $workers)"), 'succeeded|100', "run, $workers workers, required: then it loads");
		sinks_ok($look, "run, $workers workers, required");

		flow_anew($look, $there, $ways[1][1]);
		put($look, 1, 100);
		stop_far('fast');
		is($look->query("SELECT status, loaded FROM epro_etl.run('flow', workers => $workers)"), 'succeeded|100', "run, $workers workers, not required: it loads");
		is($look->query('SELECT count(*) FROM epro_etl.outbox'), 45, "run, $workers workers, not required: the outbox has the rest");
		is($look->query(q{SELECT epro_etl.deliver('flow')}), 0, "run, $workers workers: nothing is delivered while it is away");
		is($look->query('SELECT count(*) FROM epro_etl.outbox'), 45, "run, $workers workers: it stays in the outbox");
		start_far();
		# another session knows nothing of the pause
		my $other = reach($node);
		is($other->query(q{SELECT epro_etl.deliver('flow')}), 45, "run, $workers workers: delivered");
		is($other->query(q{SELECT epro_etl.deliver('flow')}), 0, "run, $workers workers: once");
		is($other->query('SELECT count(*) FROM epro_etl.outbox'), 0, "run, $workers workers: the outbox is empty");
		$other->close;
		sinks_ok($look, "run, $workers workers, not required");
	}
	return;
}

# What waits in the outbox is not forgotten with its sink.
sub sink_stays
{
	flow_anew($look, $there, $ways[1][1]);
	stop_far('fast');
	put($look, 1, 100);
	is($look->query(q{SELECT loaded FROM epro_etl.run('flow')}), 100, 'sink stays: loaded');
	my (undef, $error) = $look->try(q{SELECT epro_etl.remove_sink('flow', 'MOOD', 'mood_far')});
	like($error, qr/ERROR/, 'sink stays: it is not taken off');
	(undef, $error) = $look->try(q{SELECT epro_etl.drop_pipeline('flow')});
	like($error, qr/ERROR/, 'sink stays: nor is the pipeline');
	start_far();
	begin_stream($look, $one_storing);
	ok(settled($look), 'sink stays: a stream delivers');
	end_stream($look, 'sink stays');
	sinks_ok($look, 'sink stays');
	return;
}

# What is held keeps nothing from ending or changing, and is not forgotten.
sub ends_while_away
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		my $what = "ends while away, $name";

		flow_anew($look, $there);
		begin_stream($look, $stages);
		put($look, 1, 40);
		ok(settled($look), "$what: it flows");
		stop_far('immediate');
		put($look, 41, 240);
		ok(flow_is($look, 'held > 0'), "$what: some are held");
		$look->query(q{SELECT epro_etl.add_edit_check('MOOD', 'any', 'score >= 0', severity => 'warning')});
		ok(flow_is($look, q{generations = 2 AND state = 'running'}), "$what: it begins anew with another edit check");
		ok(arrives_here(110, 40), "$what: others have arrived");
		ok(flow_is($look, 'held > 0'), "$what: some are held again");
		end_stream($look, "$what, drained", 'true');
		is($look->query('SELECT count(*) FROM staging'), 90, "$what: those that need it are staged");
		begin_stream($look, $stages);
		ok(flow_is($look, 'held > 0'), "$what: held by the next stream");
		end_stream($look, "$what, at once", 'false');
		begin_stream($look, $stages);
		start_far();
		ok(settled($look), "$what: all arrives");
		end_stream($look, $what);
		sinks_ok($look, $what);
		$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'any')});
	}
	return;
}

# Within the caller's own transaction, which cannot commit without the other
# server once it has sent something there: nothing has happened then.
sub lost_inline
{
	foreach my $way (@ways)
	{
		my ($kind, $with) = @$way;
		my $what = "lost inline, $kind";

		flow_anew($look, $there, $with);
		put($look, 1, 100);
		$look->query('BEGIN');
		is($look->query(q{SELECT status, loaded FROM epro_etl.run('flow', workers => 0)}), 'succeeded|100', "$what: it loads");
		$there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'look'});
		my (undef, $error) = $look->try('COMMIT');
		like($error, qr/ERROR/, "$what: it does not commit");
		is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_wide)'), '100|0', "$what: nothing has happened");
		sinks_ok($look, "$what, before");
		is($look->query(q{SELECT status, loaded FROM epro_etl.run('flow', workers => 0)}), 'succeeded|100', "$what: again");
		sinks_ok($look, $what);
	}
	return;
}

# The other server's processes are killed while rows go there.
sub killed
{
	foreach my $way (@ways)
	{
		my ($kind, $with) = @$way;
		my $what = "killed, $kind";

		flow_anew($look, $there, $with);
		begin_stream($look, $cuts[1][1]);
		$two->send(q{DO $$ BEGIN FOR i IN 0..199 LOOP PERFORM put(i * 10 + 1, i * 10 + 10); COMMIT; PERFORM pg_sleep(0.01); END LOOP; END $$});
		foreach my $n (1 .. 4)
		{
			until_true($look, "SELECT count(*) >= $n * 150 FROM put_in");
			my $pid = eval { $far->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE datname IS NOT NULL AND application_name <> 'look' AND pid <> pg_backend_pid() ORDER BY state <> 'active', pid LIMIT 1}) };
			kill 9, $pid if $pid;
		}
		$two->wait;
		ok(settled($look), "$what: all arrives");
		is(flow_shows($look, 'failures, generations'), '0|1', "$what: the stream has gone on");
		end_stream($look, $what);
		$there = reach_far();
		sinks_ok($look, $what);
		is($look->query('SELECT sum(loaded), sum(rejected + duplicate) FROM epro_etl.run_history'), '2000|0', "$what: each is counted once");
	}
	return;
}

# The connection is lost while the other server commits.
# The connection is lost when its rows have been sent and the chunk's
# subtransaction ends: nothing is being stored in the sink by then.
sub lost_at_release
{
	my $dblink = sprintf('host=%s port=%d dbname=postgres user=postgres application_name=look', $far->host, $far->port);

	$look->query(<<"SQL");
CREATE EXTENSION dblink;
CREATE SEQUENCE cuts;
CREATE TABLE mood_last (source_id bigint);
CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS \$\$
BEGIN
    IF nextval('cuts') = 1 THEN
        PERFORM FROM dblink('$dblink', 'SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = ''postgres_fdw'' OR application_name LIKE ''epro%''') AS d (ended boolean);
    END IF;
    RETURN NEW;
END \$\$;
CREATE TRIGGER cut BEFORE INSERT ON mood_last FOR EACH ROW EXECUTE FUNCTION cut();
SQL
	foreach my $way (@ways)
	{
		my ($kind, $with) = @$way;
		my $what = "lost at the release, $kind";

		flow_anew($look, $there, $with);
		$look->query(q{ALTER SEQUENCE cuts RESTART; SELECT epro_etl.add_sink('flow', 'MOOD', 'mood_last')});
		begin_stream($look, $one_storing);
		remember();
		put($look, 1, 40);
		ok(settled($look), "$what: all arrives");
		is($look->query('SELECT last_value > 1 FROM cuts'), 't', "$what: it was lost");
		ok(log_has(qr/sink public\.mood_far is away \(SQLSTATE (?:57P01|08...)\)/), "$what: the log says so");
		is(flow_shows($look, 'failures, generations'), '0|1', "$what: the stream has gone on");
		end_stream($look, $what);
		sinks_ok($look, $what);
		$look->query(q{SELECT epro_etl.remove_sink('flow', 'MOOD', 'mood_last')});
	}
	$look->query('DROP TABLE mood_last; DROP FUNCTION cut(); DROP SEQUENCE cuts; DROP EXTENSION dblink');
	return;
}

sub lost_at_commit
{
	breaks('dies at the commit',
		sub { $there->query(q{INSERT INTO at_commit SELECT g, 'die' FROM generate_series(0, 10) g}) },
		sub { $there->query('DELETE FROM at_commit') }, '(?:57P01|08...)');
	return;
}

# The other server has committed, and cannot say so: nobody can know here.
sub in_doubt
{
	foreach my $way (@ways)
	{
		my ($kind, $with, $required) = @$way;
		my $what = "in doubt, $kind";

		flow_anew($look, $there, $with);
		begin_stream($look, $one_storing);
		put($look, 1, 40);
		ok(settled($look), "$what: it flows");
		# whoever commits there waits for a standby that never comes
		$there->query(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
		$there->query('SELECT pg_reload_conf()');
		until_true($there, q{SELECT current_setting('synchronous_standby_names') = 'nobody'});
		put($look, 41, 80);
		ok(until_true($there, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'}), "$what: it waits behind its commit");
		$there->query(q{ALTER SYSTEM RESET synchronous_standby_names});
		$there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
		$there->query('SELECT pg_reload_conf()');
		ok(settled($look), "$what: all arrives");
		end_stream($look, $what);
		is($there->query('SELECT count(*), count(DISTINCT source_id) FROM mood_far'), '36|36', "$what: once");
		is($look->query('SELECT sum(loaded), sum(rejected + duplicate) FROM epro_etl.run_history'), '80|0', "$what: counted once");
		sinks_ok($look, $what);
	}
	return;
}

# Rows that the other server refuses go to quarantine, and no others.
sub refuses
{
	$there->query('ALTER TABLE mood_far ADD CONSTRAINT small CHECK (score < 100), ALTER note SET NOT NULL; CREATE UNIQUE INDEX one_note ON mood_far (note)');
	foreach my $way ([ 'required', "on_duplicate => 'reject'" ], [ 'not required', "on_duplicate => 'reject', required => false" ])
	{
		my ($kind, $with) = @$way;
		my $what = "refuses, $kind";

		flow_anew($look, $there, $with);
		$there->query(q{INSERT INTO mood_far (source_id, subject_key, severity, note) VALUES (5000, 'was there', 3, 'note of 502')});
		$look->query(q{SELECT put(1, 1000, '{"severity": 2}');
			UPDATE staging SET payload = payload || '{"score": 100}' WHERE response_id IN (1, 500, 1000);
			UPDATE staging SET payload = payload - 'note' WHERE response_id IN (250, 501);
			UPDATE put_in p SET payload = s.payload FROM staging s WHERE s.response_id = p.response_id});
		begin_stream($look, $one_storing);
		ok(settled($look), "$what: all has left");
		is($look->query(q{SELECT string_agg(source_id, ' ' ORDER BY source_id::int) FROM epro_etl.quarantine}), '1 250 500 501 502 1000', "$what: those alone");
		is($look->query(q{SELECT string_agg(concat_ws(' ', source_id, rule, kind), ', ' ORDER BY source_id::int) FROM epro_etl.finding}),
			'1 23514 constraint, 250 23502 constraint, 500 23514 constraint, 501 23502 constraint, 502 23505 constraint, 1000 23514 constraint', "$what: with a reason");
		is(flow_shows($look, 'failures, held'), '0|0', "$what: it goes on");
		end_stream($look, $what);
		is(status_of($look, 'claimed, loaded, rejected, duplicate'), '1000|994|5|1', "$what: counted");
		$there->query('DELETE FROM mood_far WHERE source_id = 5000');
		sinks_ok($look, $what);
	}
	$there->query('ALTER TABLE mood_far DROP CONSTRAINT small, ALTER note DROP NOT NULL; DROP INDEX one_note');
	return;
}

# A row of the outbox that the other server refuses is marked, and no other.
sub refused_from_outbox
{
	$there->query('ALTER TABLE mood_far ADD CONSTRAINT small CHECK (score < 100)');
	foreach my $how ('stream', 'deliver')
	{
		flow_anew($look, $there, "on_duplicate => 'reject', required => false");
		$there->query(q{INSERT INTO mood_far (source_id, subject_key, severity, note) VALUES (6, 'was there', 3, 'was there')});
		stop_far('fast');
		$look->query(q{SELECT put(1, 300, '{"severity": 2}');
			UPDATE staging SET payload = payload || '{"score": 100}' WHERE response_id IN (1, 150, 300);
			UPDATE put_in p SET payload = s.payload FROM staging s WHERE s.response_id = p.response_id});
		if ($how eq 'stream')
		{
			begin_stream($look, $one_storing);
			ok(until_true($look, 'SELECT count(*) FROM staging', 0), "outbox, $how: all has left");
		}
		else
		{
			is($look->query(q{SELECT loaded FROM epro_etl.run('flow')}), 300, "outbox, $how: all has left");
		}
		is($look->query('SELECT count(*) FROM epro_etl.outbox'), 270, "outbox, $how: it waits");
		start_far();
		my $other = reach($node);
		$other->query(q{SELECT epro_etl.deliver('flow')}) if $how eq 'deliver';
		$other->close;
		ok(until_true($look, 'SELECT count(*) FROM epro_etl.outbox WHERE refused IS NULL', 0), "outbox, $how: delivered");
		is($look->query(q{SELECT string_agg(concat_ws(' ', "row"->>'source_id', refused), ', ' ORDER BY ("row"->>'source_id')::int) FROM epro_etl.outbox}),
			'1 23514, 6 23505, 150 23514, 300 23514', "outbox, $how: four are marked, with the reason");
		is($look->query('SELECT count(*), count(run_id), count(source_id) FROM epro_etl.outbox'), '4|4|4', "outbox, $how: and can be found again");
		is($look->query('SELECT count(*) FROM epro_etl.quarantine'), 0, "outbox, $how: they are loaded here");
		if ($how eq 'stream')
		{
			is(flow_shows($look, 'state, failures, generations'), 'running|0|1', "outbox, $how: the stream goes on");
			end_stream($look, "outbox, $how");
		}
		$there->query('DELETE FROM mood_far WHERE source_id = 6');
		sinks_ok($look, "outbox, $how");
	}
	$there->query('ALTER TABLE mood_far DROP CONSTRAINT small');
	return;
}

# A constraint there that waits for the commit refuses one row: the others
# arrive, and the stream does not stand still for it.
sub refuses_at_commit
{
	foreach my $way (@ways)
	{
		my ($kind, $with, $required) = @$way;
		my $what = "refuses at the commit, $kind";

		flow_anew($look, $there, $with);
		$there->query(q{INSERT INTO at_commit VALUES (99, 'refuse')});
		$look->query(q{SELECT put(1, 100); UPDATE staging SET payload = payload || '{"score": 99}' WHERE response_id IN (2, 50);
			UPDATE put_in p SET payload = s.payload FROM staging s WHERE s.response_id = p.response_id});
		begin_stream($look, $one_storing);
		ok(settled($look), "$what: all has left") or diag(flow_shows($look, 'state, held, failures, sqlstate, message'));
		put($look, 101, 140);
		ok(settled($look), "$what: it goes on");
		is($look->query(q{SELECT string_agg(source_id, ' ' ORDER BY source_id::int) FROM epro_etl.quarantine}), '2 50', "$what: those alone");
		end_stream($look, $what);
		sinks_ok($look, $what);
	}

	# from the outbox
	flow_anew($look, $there, $ways[1][1]);
	$there->query(q{INSERT INTO at_commit VALUES (99, 'refuse')});
	stop_far('fast');
	$look->query(q{SELECT put(1, 100); UPDATE staging SET payload = payload || '{"score": 99}' WHERE response_id IN (2, 50);
		UPDATE put_in p SET payload = s.payload FROM staging s WHERE s.response_id = p.response_id});
	begin_stream($look, $one_storing);
	ok(until_true($look, 'SELECT count(*) FROM staging', 0), 'refuses at the commit, outbox: all has left');
	start_far();
	ok(settled($look), 'refuses at the commit, outbox: delivered') or diag(flow_shows($look, 'state, held, failures, sqlstate, message'));
	is($look->query(q{SELECT string_agg(concat_ws(' ', "row"->>'source_id', refused), ', ' ORDER BY outbox_id) FROM epro_etl.outbox}),
		'2 23514, 50 23514', 'refuses at the commit, outbox: those alone');
	end_stream($look, 'refuses at the commit, outbox');
	sinks_ok($look, 'refuses at the commit, outbox');
	return;
}

# The time that a sink is given is over when its statement is, also when the
# statement was refused.
sub late
{
	$there->query('ALTER TABLE mood_far ADD CONSTRAINT small CHECK (score < 100)');
	flow_anew($look, $there);
	begin_stream($look, $one_storing);
	put($look, 2, 2, '{"score": 100}');
	ok(settled($look), 'late: refused');
	# longer than sink_timeout, by the server's clock
	ok(until_true($look, q{SELECT clock_timestamp() - last_try > interval '1.5 s' FROM epro_etl.quarantine}), 'late: its time would be over');
	is(flow_shows($look, 'state, failures, generations'), 'running|0|1', 'late: the stream goes on') or diag(flow_shows($look, 'sqlstate, message'));
	put($look, 3, 20);
	ok(settled($look), 'late: others arrive');
	end_stream($look, 'late');
	sinks_ok($look, 'late');
	$there->query('ALTER TABLE mood_far DROP CONSTRAINT small');
	return;
}

# A statement there takes too long.
sub slow
{
	my $close = sub { $there->query('SELECT pg_advisory_lock(80, g) FROM generate_series(0, 10) g; INSERT INTO at_insert SELECT generate_series(0, 10)') };
	my $open = sub { $there->query('SELECT pg_advisory_unlock_all(); DELETE FROM at_insert') };
	my $quiet = q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()};

	breaks('slow', $close, $open, '57014',
		meanwhile => sub { ok(until_true($there, $quiet, 0), "$_[0]: its statement was canceled there") });

	# who waits for it can be ended at once
	$look->query(q{ALTER SYSTEM SET epro_etl.sink_timeout = 0});
	$look->query('SELECT pg_reload_conf()');
	foreach my $how ('stop', 'terminate the worker', 'terminate the leader', 'cancel the worker')
	{
		flow_anew($look, $there);
		$close->();
		begin_stream($look, $one_storing);
		put($look, 1, 40);
		ok(until_true($there, $quiet, 1), "slow, $how: it waits there");
		my $began = time();
		my $pid = $look->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = '} . ($how =~ /leader/ ? 'epro_etl stream' : 'epro_etl stage worker') . q{'});
		if ($how eq 'stop')
		{
			end_stream($look, "slow, $how", 'false');
		}
		else
		{
			$look->query('SELECT pg_' . ($how =~ /^cancel/ ? 'cancel' : 'terminate') . "_backend($pid)");
			ok(until_true($look, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0), "slow, $how: it ends");
		}
		cmp_ok(time() - $began, '<', 5, "slow, $how: promptly");
		$open->();
		ok(until_true($there, $quiet, 0), "slow, $how: nothing goes on there");
		is($look->query('SELECT count(*) FROM mood_far'), 0, "slow, $how: nothing has arrived there");
		$look->query(q{SELECT epro_etl.stop_stream('flow')}) if $how ne 'stop';
		begin_stream($look, $one_storing);
		ok(settled($look), "slow, $how: then all arrives");
		end_stream($look, "slow, $how, at last");
		sinks_ok($look, "slow, $how");
	}
	$look->query('ALTER SYSTEM RESET epro_etl.sink_timeout');
	$look->query('SELECT pg_reload_conf()');
	return;
}

sub slow_at_commit
{
	breaks('slow at the commit',
		sub { $there->query(q{SELECT pg_advisory_lock(79, g) FROM generate_series(0, 10) g; INSERT INTO at_commit SELECT g, 'wait' FROM generate_series(0, 10) g}) },
		sub { $there->query('SELECT pg_advisory_unlock_all(); DELETE FROM at_commit') }, '57014');
	return;
}

# It takes connections, and does not answer. Up to PostgreSQL 15 nothing but
# connect_timeout ends that; later, sink_timeout may be the first.
sub silent
{
	my $postmaster = (split /\n/, PostgreSQL::Test::Utils::slurp_file($far->data_dir . '/postmaster.pid'))[0];

	breaks('silent',
		sub { $there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'look'}); kill 'STOP', $postmaster },
		sub { kill 'CONT', $postmaster }, '(?:08...|57014)');
	return;
}

# Two other servers, of which one is lost at its commit, when the other has
# committed already, or not yet.
sub two_servers
{
	$there->query(q{CREATE TABLE mood_second (LIKE mood_far, PRIMARY KEY (source_id));
		CREATE TABLE second_dies (always int);
		CREATE FUNCTION second_dies() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
			'BEGIN IF EXISTS (SELECT FROM second_dies) THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER second_dies AFTER INSERT ON mood_second DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION second_dies()});
	$look->query(q{DO $$ BEGIN EXECUTE (SELECT format('CREATE SERVER second FOREIGN DATA WRAPPER postgres_fdw OPTIONS (%s)', string_agg(format('%I %L', option_name, option_value), ', '))
			FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = 'far'); END $$;
		CREATE USER MAPPING FOR CURRENT_USER SERVER second OPTIONS (user 'postgres');
		CREATE FOREIGN TABLE mood_second (source_id bigint, subject_key text, score int, note text, run_id bigint) SERVER second});
	foreach my $way (@ways)
	{
		my ($kind, $with) = @$way;
		my $what = "two servers, $kind";

		flow_anew($look, $there);
		$there->query('TRUNCATE mood_second');
		$look->query("SELECT epro_etl.add_sink('flow', 'MOOD', 'mood_second', $with)");
		begin_stream($look, $one_storing);
		put($look, 1, 40);
		ok(settled($look), "$what: it flows");
		remember();
		$there->query('INSERT INTO second_dies VALUES (1)');
		put($look, 41, 80);
		ok(log_has(qr/sink public\.mood_second is away/), "$what: one is away");
		$there->query('DELETE FROM second_dies');
		ok(settled($look), "$what: all arrives");
		end_stream($look, $what);
		is($there->query('SELECT count(*), count(DISTINCT source_id) FROM mood_second'), '72|72', "$what: once in the one that was lost");
		is($look->query('SELECT sum(loaded), sum(rejected + duplicate) FROM epro_etl.run_history'), '80|0', "$what: counted once");
		sinks_ok($look, $what);
		$look->query(q{SELECT epro_etl.remove_sink('flow', 'MOOD', 'mood_second')});
	}
	return;
}

# What is there is not as it should be, or does not take us.
sub unfit
{
	breaks('read-only',
		sub { far_role('SET default_transaction_read_only = on') }, sub { far_role('RESET default_transaction_read_only') }, '25006');
	breaks('statement timeout there',
		sub { $there->query('SELECT pg_advisory_lock(80, g) FROM generate_series(0, 10) g; INSERT INTO at_insert SELECT generate_series(0, 10)'); far_role(q{SET statement_timeout = '100ms'}) },
		sub { $there->query('SELECT pg_advisory_unlock_all(); DELETE FROM at_insert'); far_role('RESET statement_timeout') }, '57014');
	breaks('table renamed there',
		sub { $there->query('ALTER TABLE mood_far RENAME TO mood_gone') }, sub { $there->query('ALTER TABLE mood_gone RENAME TO mood_far') }, '42P01');
	breaks('column renamed there',
		sub { $there->query('ALTER TABLE mood_far RENAME note TO remark') }, sub { $there->query('ALTER TABLE mood_far RENAME remark TO note') }, '42703');
	return;
}

# It does not let us in.
sub no_place
{
	my $hba = $far->data_dir . '/pg_hba.conf';
	my $open = PostgreSQL::Test::Utils::slurp_file($hba);
	my $write = sub {
		open my $file, '>', $hba or die "could not write $hba: $!";
		print $file $_[0];
		close $file;
		$there->query('SELECT pg_reload_conf()');
		$there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'carrier'});
	};

	$there->query(q{CREATE ROLE carrier LOGIN PASSWORD 'right'; GRANT SELECT, INSERT ON mood_far TO carrier; GRANT SELECT ON at_commit, at_insert TO carrier});
	$look->query(q{ALTER USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (SET user 'carrier', ADD password 'right')});
	breaks('not granted', sub { $there->query('REVOKE INSERT ON mood_far FROM carrier') }, sub { $there->query('GRANT INSERT ON mood_far TO carrier') }, '42501');
	breaks('out of connections',
		sub { $there->query('ALTER ROLE carrier CONNECTION LIMIT 0'); $there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'carrier'}) },
		sub { $there->query('ALTER ROLE carrier CONNECTION LIMIT -1') }, '08...');
	breaks('wrong password',
		sub { $write->("local all carrier scram-sha-256\n$open"); $there->query(q{ALTER ROLE carrier PASSWORD 'another'}) },
		sub { $there->query(q{ALTER ROLE carrier PASSWORD 'right'}); $write->($open) }, '(?:08|28)...');
	breaks('no user mapping',
		sub { $look->query('DROP USER MAPPING FOR CURRENT_USER SERVER far') },
		sub { $look->query(q{CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'carrier', password 'right')}) }, '42704');
	$look->query(q{ALTER USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (SET user 'postgres', DROP password)});
	return;
}

# The foreign table goes, or changes, on this side.
sub dropped_here
{
	flow_anew($look, $there);
	begin_stream($look, $one_storing);
	put($look, 1, 40);
	ok(settled($look), 'dropped here: it flows');
	my $sink = $look->query(q{SELECT sink_id FROM epro_etl.sink WHERE target = 'mood_far'::regclass});
	$two->query('DROP FOREIGN TABLE mood_far');
	put($look, 41, 80);
	ok(flow_is($look, q{failures > 0 AND sqlstate IS NOT NULL}) || 1, 'dropped here: a state to see');
	note(flow_shows($look, 'state, failures, sqlstate, message'));
	$look->query(q{SELECT epro_etl.remove_sink('flow', 'MOOD')});
	$two->query('CREATE FOREIGN TABLE mood_far (source_id bigint, subject_key text, visit text, site text, severity int, score int, note text, run_id bigint) SERVER far');
	link_far($look);
	$look->query(q{SELECT epro_etl.stop_stream('flow')});
	begin_stream($look, $one_storing);
	ok(settled($look), 'dropped here: all leaves');
	end_stream($look, 'dropped here');
	# those that were loaded between the two sinks are not there
	is($look->query(q{SELECT count(*) FROM wrong() w WHERE w NOT LIKE 'the other server%'}), 0, 'dropped here: nothing else is wrong');
	return;
}

# No text of the other server's stays here: it can quote a response.
sub planted
{
	remember();
	my %tells = (
		'of the data' => q{RAISE EXCEPTION 'not %', NEW.note USING DETAIL = NEW::text, HINT = NEW.note, CONSTRAINT = NEW.note, COLUMN = NEW.note},
		'away' => q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = '57P01', DETAIL = NEW::text, HINT = NEW.note},
		'serialization' => q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = '40001', DETAIL = NEW::text, HINT = NEW.note},
		'canceled' => q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = '57014', DETAIL = NEW::text, HINT = NEW.note},
		'ours' => q{RAISE EXCEPTION 'not %', NEW.note USING ERRCODE = 'EP006', DETAIL = NEW::text, HINT = NEW.note},
		'a warning' => q{RAISE WARNING 'not %', NEW.note},
		'a name' => q{EXECUTE 'SELECT ' || quote_ident(NEW.note)});

	foreach my $kind (sort keys %tells)
	{
		foreach my $when ('insert', 'commit')
		{
			foreach my $way (@ways)
			{
				my $what = "planted, $kind, at $when, $way->[0]";

				flow_anew($look, $there, $way->[1]);
				$there->query("CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN $tells{$kind}; RETURN NULL; END\$\$");
				$there->query('CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON mood_far ' . ($when eq 'commit' ? 'DEFERRABLE INITIALLY DEFERRED ' : '') . 'FOR EACH ROW EXECUTE FUNCTION tell()');
				put($look, 1, 40, qq({"note": "$marker"}));
				begin_stream($look, $one_storing);
				ok(until_true($look, q{SELECT count(*) FILTER (WHERE form = 'AE') FROM staging}, 0), "$what: it goes on")
				  or diag(flow_shows($look, 'state, failures, sqlstate, message'));
				unlike(flow_shows($look, 'state, sqlstate, message'), qr/$marker/, "$what: not in stat_stream");
				$look->query(q{SELECT epro_etl.stop_stream('flow', drain => false)});
				my ($out, $error) = $look->try(q{SELECT epro_etl.run('flow', workers => 1)});
				unlike($out . $error, qr/$marker/, "$what: not in what the client is told");
				foreach my $place ('epro_etl.finding', 'epro_etl.run_ledger', 'epro_etl.run_worker', 'epro_etl.run_history')
				{
					is($look->query("SELECT count(*) FROM $place t WHERE t::text ~ '$marker'"), 0, "$what: not in $place");
				}
				$there->query('DROP TRIGGER tell ON mood_far');
				$look->query(q{SELECT epro_etl.deliver('flow')});
			}
		}
	}
	unlike(logged(), qr/$marker/, 'planted: not in the log');
	return;
}

sub remember
{
	$offset = -s $node->logfile;
	return;
}

sub logged
{
	return log_since($node, $offset);
}

sub log_has
{
	my ($what) = @_;
	my $end = time() + $EproTest::PATIENCE;

	while (time() < $end)
	{
		return 1 if logged() =~ $what;
		sleep(0.05);
	}
	return 0;
}

# Waits until so many are in this server's tables, of those behind an id.
sub arrives_here
{
	my ($n, $behind) = @_;
	return until_true($look,
		"SELECT (SELECT count(*) FROM mood_wide WHERE source_id > $behind) + (SELECT count(*) FROM ae_wide WHERE source_id > $behind)", $n);
}

sub stop_far
{
	my ($mode) = @_;

	$there->close;
	$far->stop($mode);
	return;
}

sub start_far
{
	$far->start;
	$there = far_session($far);
	return;
}

# After a crash of its own.
sub reach_far
{
	$there->close;
	return reach($far);
}

# A setting of the role that comes from here; for connections to come, so that
# those that there are end.
sub far_role
{
	my ($setting) = @_;

	$there->query("ALTER ROLE postgres $setting");
	$there->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'look'});
	return;
}
