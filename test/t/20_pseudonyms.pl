# Random codes wherever a response travels: two workers and two runs that meet
# the same new subjects, streams cut anywhere, processes that are killed in the
# chunk that made codes. One code for one subject, always, and no original in a
# log.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = create_node('pseudonyms', conf => <<'CONF');
epro_etl.naptime = '100ms'
shared_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
auto_explain.log_analyze = off
log_min_messages = debug1
log_statement = 'none'
log_error_verbosity = verbose
CONF
create_fixture($node);
my $look = observer($node, options => { 'auto_explain.log_min_duration' => -1 });
my $one = EproTest::Psql->new($node);
my $two = EproTest::Psql->new($node);
my $full_width = 'Ｓ患者🙂';

$look->query(q{SELECT epro_etl.set_deid('MOOD', 'subject', 'pseudonymize'); SELECT epro_etl.set_deid('MOOD', '/note', 'pseudonymize', '{"domain": "notes"}')});
# as stage(), with subjects of the caller's choice and a mark in each original
$look->query(<<"SQL");
CREATE FUNCTION stage_subjects(first bigint, last bigint, subjects int, notes int, wide int DEFAULT 0) RETURNS void LANGUAGE sql AS \$\$
    WITH made AS (
        INSERT INTO staging
        SELECT g, 'ST01', 'MOOD', 'CANARY$full_width-' || g % subjects, 'V1', '2026-01-01 08:00+00',
               jsonb_build_object('mood01', g % 4, 'mood02', g % 3, 'note', 'CANARY note ' || g % notes || repeat('x', wide))
        FROM generate_series(first, last) g ORDER BY g * 7919 % 1009
        RETURNING *)
    INSERT INTO put_in (response_id, payload) SELECT response_id, payload FROM made;
\$\$;
CREATE TABLE staged AS TABLE staging;
SQL

parts('main', qw(two_workers two_runs rolled_back a_dead_try streams by_address killed deadlock in_one_snapshot not_created deferred requeued dumped logs));
$_->close foreach ($look, $one, $two);
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal (?!9)/, 'no process crashed');
done_testing();

# Nothing was ever run, no code ever made; subjects staged anew.
sub anew
{
	my (@what) = @_;
	restage($look);
	$look->query('TRUNCATE epro_etl.pseudonym, staged');
	more(@what) if @what;
	return;
}

sub more
{
	$look->query('SELECT stage_subjects(' . join(', ', @_) . ')');
	$look->query('INSERT INTO staged SELECT s.* FROM staging s WHERE NOT EXISTS (SELECT FROM staged d WHERE d.response_id = s.response_id)');
	return;
}

# The property: each thing in the sinks is the one code of what was staged.
sub codes_ok
{
	my ($name, $codes) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($look->query(q{SELECT count(*) FROM mood_sink m JOIN staged s ON s.response_id = m.source_id
		LEFT JOIN epro_etl.pseudonym p ON p.code = m.subject_key LEFT JOIN epro_etl.pseudonym n ON n.code = m.note
		WHERE (p.domain, p.study, p.original) IS DISTINCT FROM ('subject', s.study, s.subject)
		   OR (n.domain, n.study, n.original) IS DISTINCT FROM ('notes', s.study, s.payload->>'note')}), 0, "$name: every code stands for what was there");
	is($look->query(q{SELECT count(*) = count(DISTINCT code) AND count(*) = count(DISTINCT (domain, study, original)) AND bool_and(code ~ '^[0-9a-f]{32}$') FROM epro_etl.pseudonym}),
		't', "$name: one code each");
	is($look->query('SELECT count(*) FROM epro_etl.pseudonym'), $codes, "$name: as many as there are originals") if defined $codes;
	return oracle_ok($look, $name);
}

# Who was taken out of quarantine is still in the ledger of who was put there.
sub forget_rejected
{
	$look->query('TRUNCATE epro_etl.finding, epro_etl.run_worker, epro_etl.run_ledger');
	return;
}

# Workers that make codes in one order never meet in a circle.
sub deadlocks
{
	return $look->query(q{SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'});
}

sub two_workers
{
	anew(1, 600, 40, 17);
	is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 2)}), 'succeeded|600', 'two workers');
	codes_ok('two workers', 57);
	$look->query('CREATE TEMP TABLE kept AS TABLE epro_etl.pseudonym');
	more(601, 1200, 60, 17);
	is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 2)}), 'succeeded|600', 'two workers again');
	codes_ok('two workers again', 77);
	is($look->query('SELECT count(*) FROM (TABLE kept EXCEPT TABLE epro_etl.pseudonym) x'), 0, 'codes stay');
	$look->query('DROP TABLE kept');

	# the first chunks of all have the same new subjects, each in another order
	$one->query('SET epro_etl.batch_size = 2000');
	foreach my $round (1 .. 4)
	{
		my $name = "four workers, round $round";

		anew(1, 8000, 900, 1);
		is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 4)}), 'succeeded|8000', $name);
		codes_ok($name, 901);
	}
	$one->query('RESET epro_etl.batch_size');
	is(deadlocks(), 0, 'four workers: none stood in the way of two others');
	return;
}

# Two runs of two pipelines over the same subjects; each waits for the other's
# chunk where it has to.
sub two_runs
{
	anew(1, 400, 30, 11);
	$look->query(q{CREATE TABLE staging_b (LIKE staging INCLUDING ALL); CREATE TABLE sink_b (LIKE mood_sink INCLUDING ALL)});
	$look->query(q{SELECT epro_etl.create_pipeline('mood_b', 'staging_b', '{"id": "response_id"}'); SELECT epro_etl.add_sink('mood_b', 'MOOD', 'sink_b')});
	$look->query(q{WITH moved AS (DELETE FROM staging WHERE response_id > 200 RETURNING *) INSERT INTO staging_b SELECT * FROM moved});
	# the first stands at a gate with the codes of its first chunk in hand
	close_gate($look, $look->query('SELECT response_id FROM staging LIMIT 1'));
	$one->send(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), 'two runs: one has made codes and not committed');
	is($look->query('SELECT count(*) FROM epro_etl.pseudonym'), 0, 'two runs: nobody sees them');
	$two->send(q{SELECT status, loaded FROM epro_etl.run('mood_b', workers => 1)});
	ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted}), 'two runs: the other waits for them');
	open_gates($look);
	is(($one->wait)[0], 'succeeded|200', 'two runs: the first');
	is(($two->wait)[0], 'succeeded|200', 'two runs: the second');
	is($look->query(q{SELECT count(*) FROM mood_sink a JOIN staged sa ON sa.response_id = a.source_id JOIN staged sb ON sb.subject = sa.subject JOIN sink_b b ON b.source_id = sb.response_id
		WHERE a.subject_key <> b.subject_key}), 0, 'two runs: a subject has one code in both');
	is($look->query('SELECT count(*) FROM epro_etl.pseudonym'), 41, 'two runs: as many codes as originals');
	oracle_ok($look, 'two runs', sources => [ 'staging', 'staging_b' ], sinks => [ 'mood_sink', 'sink_b' ]);
	$look->query(q{SELECT epro_etl.drop_pipeline('mood_b'); DROP TABLE staging_b, sink_b});
	return;
}

# Whoever waits for a code that is rolled back makes it.
sub rolled_back
{
	anew(1, 100, 10, 5);
	$one->query(q{BEGIN; SELECT * FROM epro_etl.run('mood', workers => 0)});
	is($one->query('SELECT count(*) FROM epro_etl.pseudonym'), 15, 'rolled back: made in the transaction');
	$one->query('ROLLBACK');
	is($look->query('SELECT count(*) FROM epro_etl.pseudonym'), 0, 'rolled back: gone with it');
	oracle_ok($look, 'rolled back');
	# another's transaction is still open, with the same subjects in another table
	$look->query('CREATE TABLE staging_b (LIKE staging INCLUDING ALL); CREATE TABLE sink_b (LIKE mood_sink INCLUDING ALL)');
	$look->query(q{SELECT epro_etl.create_pipeline('mood_b', 'staging_b', '{"id": "response_id"}'); SELECT epro_etl.add_sink('mood_b', 'MOOD', 'sink_b'); INSERT INTO staging_b TABLE staging});
	$one->query(q{BEGIN; SELECT * FROM epro_etl.run('mood_b', workers => 0)});
	$two->send(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 1)});
	ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted}), 'rolled back: a worker waits for it');
	$one->query('ROLLBACK');
	is(($two->wait)[0], 'succeeded|100', 'rolled back: the worker goes on');
	codes_ok('rolled back', 15);
	$look->query(q{SELECT epro_etl.drop_pipeline('mood_b'); DROP TABLE staging_b, sink_b});
	return;
}

# A chunk that is rolled back and tried again in the same worker must not go on
# with the codes of its first try: a sink's trigger fails once with 40001.
sub a_dead_try
{
	foreach my $stages (undef, '{"store": 1}', '{"validate": 1, "store": 1}')
	{
		my $name = 'a dead try, ' . ($stages || 'batch');

		anew(1, 100, 10, 5);
		$look->query(<<'SQL');
CREATE SEQUENCE tries;
CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') <= 3 THEN
        RAISE 'no' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fail_once BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION fail_once();
SQL
		if (defined $stages)
		{
			ok(start_stream($one, $stages), "$name: it runs");
			ok(await_arrived($look, 100), "$name: all arrives");
			stop_stream_ok($one, $name);
		}
		else
		{
			is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 1)}), 'succeeded|100', $name);
		}
		is($look->query('SELECT last_value > 3 FROM tries'), 't', "$name: it was tried again");
		codes_ok($name, 15);
		$look->query('DROP FUNCTION fail_once CASCADE; DROP SEQUENCE tries');
	}
	return;
}

# Every way to cut a stream, two workers to each group.
sub streams
{
	my @stages = qw(decode deidentify normalise validate store);
	my $codes;

	foreach my $cut (0 .. 15)
	{
		my @groups = ((grep { $cut & (1 << $_) } 0 .. 3), 4);
		my $stages = '{' . join(', ', map { "\"$stages[$_]\": " . ($_ == 4 ? 1 : 2) } @groups) . '}';

		anew();
		ok(start_stream($one, $stages), "$stages: it runs");
		more(1, 300, 25, 9);
		more(301, 400, 40, 9, 20000) if $cut % 2;
		my $n = $cut % 2 ? 400 : 300;
		ok(await_arrived($look, $n), "$stages: all arrives");
		stop_stream_ok($one, $stages);
		codes_ok($stages, $cut % 2 ? 40 + 18 : 25 + 9);
	}
	return;
}

# What does not fit a slot goes by its address, and so does what is judged with
# its undeclared keys: every group behind the first resolves again.
sub by_address
{
	my $stages = '{"decode": 1, "deidentify": 1, "normalise": 1, "validate": 1, "store": 1}';

	$look->query(q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "minProperties": 1, "patternProperties": {"^zz": {"type": "string"}}, "properties": {
		"mood01": {"type": "integer"}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
	anew();
	ok(start_stream($one, $stages), 'by address: it runs');
	more(1, 200, 25, 9, 30000);
	ok(await_arrived($look, 200), 'by address: all arrives');
	stop_stream_ok($one, 'by address');
	codes_ok('by address', 34);
	return;
}

# A worker that is killed in the chunk that made codes.
sub killed
{
	foreach my $workers (1, 2)
	{
		my $name = "kill -9 with $workers workers";

		anew(1, 300, 20, 7);
		close_gate($look, $look->query('SELECT response_id FROM staging LIMIT 1'));
		$one->send("SELECT * FROM epro_etl.run('mood', workers => $workers)");
		ok(await_gate($look), "$name: it is in its chunk");
		my $seen = $look->query('SELECT count(*) FROM epro_etl.pseudonym');
		kill 'KILL', $look->query(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = 77 AND NOT granted LIMIT 1});
		$one->wait;
		await_back($node);
		$_->close foreach ($look, $one, $two);
		$look = observer($node, options => { 'auto_explain.log_min_duration' => -1 });
		$one = EproTest::Psql->new($node);
		$two = EproTest::Psql->new($node);
		is($seen, 0, "$name: nothing was committed") if $workers == 1;
		is($look->query('SELECT count(*) FROM epro_etl.pseudonym'), 0, "$name: its codes are gone") if $workers == 1;
		$look->query('DELETE FROM gate');
		oracle_ok($look, $name);
		is($one->query(q{SELECT status FROM epro_etl.run('mood', workers => 2)}), 'succeeded', "$name: the next run does the rest");
		codes_ok($name, 27);
	}
	return;
}

# A transaction that makes codes in another order than a worker: somebody steps back.
sub deadlock
{
	anew();
	$look->query('CREATE TABLE staging_b (LIKE staging INCLUDING ALL); CREATE TABLE sink_b (LIKE mood_sink INCLUDING ALL)');
	$look->query(q{SELECT epro_etl.create_pipeline('mood_b', 'staging_b', '{"id": "response_id"}'); SELECT epro_etl.add_sink('mood_b', 'MOOD', 'sink_b')});
	more(1, 50, 50, 1);
	# the last in the order first; then the worker, which has all but that; then all
	$one->query(q{BEGIN; SET LOCAL deadlock_timeout = '1h'; INSERT INTO staging_b SELECT response_id, study, form, subject, visit, authored, '{"mood01": 1, "note": "other"}' FROM staging ORDER BY subject COLLATE "C" DESC LIMIT 1; SELECT epro_etl.run('mood_b', workers => 0)});
	$two->send(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 1)});
	ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted}), 'deadlock: the worker waits');
	# committed in staging_b alone, so that the inline run asks for what the worker holds
	$one->query(q{INSERT INTO staging_b SELECT 1000 + response_id, study, form, subject, visit, authored, '{"mood01": 1, "note": "other"}' FROM staged ORDER BY subject COLLATE "C" LIMIT 1});
	$one->query(q{INSERT INTO put_in SELECT 'b', response_id, payload FROM staging_b});
	is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood_b', workers => 0)}), 'succeeded|1', 'deadlock: the transaction goes on');
	$one->query('DELETE FROM staging_b; DELETE FROM sink_b; DELETE FROM put_in WHERE source = \'b\'; COMMIT');
	is(($two->wait)[0], 'succeeded|50', 'deadlock: the worker steps back, and comes again');
	ok(until_true($look, q{SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = 'postgres'}), 'deadlock: there was one');
	$look->query(q{SELECT epro_etl.drop_pipeline('mood_b'); DROP TABLE staging_b, sink_b; DELETE FROM epro_etl.run_worker w USING epro_etl.run_ledger l WHERE w.run_id = l.run_id AND l.pipeline = 'mood_b'; DELETE FROM epro_etl.run_ledger WHERE pipeline = 'mood_b'});
	codes_ok('deadlock', 52);
	return;
}

# An inline run under a snapshot of before takes the codes of after.
sub in_one_snapshot
{
	foreach my $level ('repeatable read', 'serializable')
	{
		anew(1, 40, 10, 5);
		$look->query('CREATE TABLE waiting AS TABLE staging; DELETE FROM staging WHERE response_id > 20');
		$look->query('DELETE FROM waiting WHERE response_id <= 20; CREATE TABLE staging_b (LIKE staging INCLUDING ALL); INSERT INTO staging_b TABLE waiting; DROP TABLE waiting');
		$look->query(q{CREATE TABLE sink_b (LIKE mood_sink INCLUDING ALL)});
		$look->query(q{SELECT epro_etl.create_pipeline('mood_b', 'staging_b', '{"id": "response_id"}'); SELECT epro_etl.add_sink('mood_b', 'MOOD', 'sink_b')});
		$one->query("BEGIN ISOLATION LEVEL \U$level\E; SELECT count(*) FROM epro_etl.run_ledger");
		is($two->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 1)}), 'succeeded|20', "$level: another makes codes");
		is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood_b', workers => 0)}), 'succeeded|20', "$level: they are there");
		$one->query('COMMIT');
		is($look->query('SELECT count(*) FROM epro_etl.pseudonym'), 15, "$level: one code each");
		oracle_ok($look, $level, sources => [ 'staging', 'staging_b' ], sinks => [ 'mood_sink', 'sink_b' ]);
		$look->query(q{SELECT epro_etl.drop_pipeline('mood_b'); DROP TABLE staging_b, sink_b});
	}
	return;
}

sub not_created
{
	my $set = q{SELECT epro_etl.set_deid('MOOD', 'subject', 'pseudonymize', '{"allow_create": %s}')};

	foreach my $stages (undef, '{"store": 2}', '{"decode": 1, "deidentify": 2, "store": 1}')
	{
		my $name = 'allow_create false, ' . ($stages || 'batch');

		anew(1, 100, 10, 5);
		is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 2)}), 'succeeded|100', "$name: known by now");
		$look->query(sprintf $set, 'false');
		more(101, 200, 20, 5);
		if (defined $stages)
		{
			ok(start_stream($one, $stages), "$name: it runs");
			ok(await_arrived($look, 200), "$name: all arrives");
			stop_stream_ok($one, $name);
		}
		else
		{
			is($one->query(q{SELECT status, loaded, rejected FROM epro_etl.run('mood', workers => 2)}), 'succeeded|50|50', "$name: unknown subjects are rejected");
		}
		is($look->query(q{SELECT count(*), count(DISTINCT rule), min(kind) FROM epro_etl.finding}), '50|1|deidentify', "$name: a finding each");
		codes_ok($name, 15);
		$look->query(sprintf $set, 'true');
		is($look->query(q{SELECT epro_etl.requeue('mood')}), 50, "$name: requeued");
		forget_rejected();
		is($one->query(q{SELECT status, loaded, rejected FROM epro_etl.run('mood', workers => 2)}), 'succeeded|50|0', "$name: and loaded");
		codes_ok("$name, requeued", 25);
	}
	return;
}

# A pipeline that judges before it takes: what is deferred has its code, and keeps
# it when its reference answers.
sub deferred
{
	$look->query(q{CREATE TABLE reference (wait int); INSERT INTO reference VALUES (0);
		CREATE FUNCTION known(bigint) RETURNS boolean STABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(wait) FROM public.reference; RETURN true; END'});
	$look->query(q{SELECT epro_etl.add_lookup('MOOD', 'known', 'public.known(mood01)', timeout => '200 ms')});
	foreach my $stages (undef, '{"store": 1}', '{"decode": 1, "deidentify": 1, "validate": 1, "store": 1}')
	{
		my $name = 'deferred, ' . ($stages || 'batch');

		anew(1, 60, 10, 5);
		$look->query('UPDATE reference SET wait = 60');
		if (defined $stages)
		{
			ok(start_stream($one, $stages), "$name: it runs");
			ok(until_true($look, 'SELECT count(*) FROM epro_etl.pseudonym', 15), "$name: codes are made");
		}
		else
		{
			is($one->query(q{SELECT status, loaded, deferred FROM epro_etl.run('mood', workers => 1)}), 'succeeded|0|60', "$name: nothing is loaded");
		}
		my $before = $look->query('SELECT string_agg(code, $$,$$ ORDER BY code) FROM epro_etl.pseudonym');
		is($look->query('SELECT count(*) FROM staging'), 60, "$name: all stay");
		$look->query('UPDATE reference SET wait = 0');
		if (defined $stages)
		{
			ok(await_arrived($look, 60), "$name: all arrives");
			stop_stream_ok($one, $name);
		}
		else
		{
			is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 2)}), 'succeeded|60', "$name: loaded");
		}
		is($look->query('SELECT string_agg(code, $$,$$ ORDER BY code) FROM epro_etl.pseudonym'), $before, "$name: with the codes that they had");
		codes_ok($name, 15);
	}
	$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'known'); DROP FUNCTION known; DROP TABLE reference});
	return;
}

# Rejected for another reason: the code is there already, and stays.
sub requeued
{
	anew(1, 60, 10, 5);
	$look->query(q{SELECT epro_etl.add_edit_check('MOOD', 'never', 'mood02 > 5')});
	is($one->query(q{SELECT status, rejected FROM epro_etl.run('mood', workers => 2)}), 'succeeded|60', 'requeued: all are rejected');
	my $before = $look->query('SELECT string_agg(code, $$,$$ ORDER BY code) FROM epro_etl.pseudonym');
	oracle_ok($look, 'rejected');
	$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'never'); SELECT epro_etl.requeue('mood')});
	forget_rejected();
	is($one->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 2)}), 'succeeded|60', 'requeued: all are loaded');
	is($look->query('SELECT string_agg(code, $$,$$ ORDER BY code) FROM epro_etl.pseudonym'), $before, 'requeued: with the codes that they had');
	codes_ok('requeued', 15);
	return;
}

sub dumped
{
	my $file = $node->basedir . '/dump.sql';

	anew(1, 60, 10, 5);
	$one->query(q{SELECT epro_etl.run('mood', workers => 2)});
	more(61, 120, 20, 5);
	run_log([ $node->installed_command('pg_dump'), '-f', $file, '-d', $node->connstr('postgres') ]) or die 'pg_dump failed';
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	$node->command_ok([ $node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored') . q{ options='-c auto_explain.log_min_duration=-1'}, '-f', $file ], 'restored');
	my $there = observer($node, dbname => 'restored', options => { 'auto_explain.log_min_duration' => -1 });
	my $all = 'SELECT md5(string_agg(p::text, $$,$$ ORDER BY code)) FROM epro_etl.pseudonym p';
	is($there->query($all), $look->query($all), 'dump and restore: the codes are the same');
	is($there->query(q{SELECT status, loaded FROM epro_etl.run('mood', workers => 2)}), 'succeeded|60', 'dump and restore: a run there');
	is($there->query('SELECT count(*) FROM epro_etl.pseudonym'), 25, 'dump and restore: it uses them');
	oracle_ok($there, 'restored');
	$there->close;
	$node->safe_psql('postgres', 'DROP DATABASE restored');
	oracle_ok($look, 'dumped');
	return;
}

# auto_explain shows nested statements with their plans;
# what the test itself wrote is not among them.
sub logs
{
	my $log = slurp_file($node->logfile);

	like($log, qr/UPDATE epro_etl.run_worker/, 'logs: nested statements are shown');
	my @lines = grep { /CANARY/ && !/statement:|STATEMENT:/ } split /\n/, $log;
	is(scalar @lines, 0, 'logs: no original') or diag(join "\n", @lines[ 0 .. ($#lines > 5 ? 5 : $#lines) ]);
	is($look->query(q{SELECT count(*) FROM epro_etl.finding f WHERE f::text ~ 'CANARY'}), 0, 'no original in a finding');
	is($look->query(q{SELECT count(*) FROM pg_stat_activity WHERE query ~ 'CANARY' AND pid <> pg_backend_pid() AND backend_type LIKE 'epro%'}), 0, 'nor in pg_stat_activity');
	return;
}
