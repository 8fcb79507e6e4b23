# Runs beside each other and beside other sessions: work is shared, what others
# have locked or changed is left and counted, and nobody waits for ever.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

my $node = create_node('concurrent');
create_fixture($node);
my $look = observer($node);
my $one = EproTest::Psql->new($node);
my $two = EproTest::Psql->new($node);

two_runs();
two_runs_race();
foreach my $source ('a plain source', 'a source with a trigger')
{
	$look->query(q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
		CREATE TRIGGER nothing BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION nothing()})
	  if $source eq 'a source with a trigger';
	rows_of_others($source, 'SELECT count(*) FROM (SELECT FROM staging WHERE response_id BETWEEN 201 AND 210 FOR UPDATE) s', 'locked FOR UPDATE');
	rows_of_others($source, 'SELECT count(*) FROM (SELECT FROM staging WHERE response_id BETWEEN 201 AND 210 FOR KEY SHARE) s', 'locked FOR KEY SHARE');
	rows_of_others($source, q{UPDATE staging SET visit = 'changed' WHERE response_id BETWEEN 201 AND 210}, 'being updated');
	rows_of_others($source, 'DELETE FROM staging WHERE response_id BETWEEN 201 AND 210', 'being deleted');
	staged_meanwhile($source);
}
$look->query('DROP TRIGGER nothing ON staging');
crossing_keys();
callers_own_lock($_) foreach ('mood_sink IN SHARE MODE', 'staging IN SHARE ROW EXCLUSIVE MODE', 'mood_sink IN SHARE ROW EXCLUSIVE MODE');
lock_of_another();
retried_twice();

$_->close foreach ($look, $one, $two);
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/,
	'no process crashed');
done_testing();

# The first run stands in its first chunk; the second does all that is free,
# and the first the rest.
sub two_runs
{
	restage($look, 1, 600, 7);
	close_gate($look, 25);
	$one->send(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), 'two runs: the first is in its chunk');
	is($two->query(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 2)}), 'succeeded|550|50',
		'two runs: the second leaves what the first has claimed, and counts it');
	open_gates($look);
	is(($one->wait)[0], 'succeeded|50|0', 'two runs: the first does the rest');
	oracle_ok($look, 'two runs');

	# the first gives up: what it had claimed is the next one's
	restage($look, 1, 600, 7);
	close_gate($look, 25);
	$one->send(q{SELECT status FROM epro_etl.run('mood', workers => 1)});
	await_gate($look);
	$two->query(q{SELECT epro_etl.run('mood', workers => 2)});
	$look->query('SELECT pg_cancel_backend(' . $one->backend . ')');
	$one->wait;
	open_gates($look);
	is($two->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)}), 'succeeded|50', 'two runs: what the first gives up is done by the next');
	oracle_ok($look, 'two runs, one canceled');
	return;
}

# No gates: as they come. An inline run is the third.
sub two_runs_race
{
	my $three = EproTest::Psql->new($node);

	restage($look, 1, 6000, 7);
	$one->send(q{SELECT status FROM epro_etl.run('mood', workers => 2)});
	$two->send(q{SELECT status FROM epro_etl.run('mood', workers => 2)});
	$three->send(q{SELECT status FROM epro_etl.run('mood', workers => 0)});
	is(($_->wait)[0], 'succeeded', 'runs that race: succeed') foreach ($one, $two, $three);
	my $left = $look->query('SELECT count(*) FROM staging');
	is($look->query('SELECT sum(claimed) FROM epro_etl.run_history') + $left, 6000, 'runs that race: together they claimed what is gone');
	oracle_ok($look, 'runs that race');
	$look->query(q{SELECT epro_etl.run('mood')});
	is($look->query('SELECT count(*) FROM staging'), 0, 'runs that race: the next does what was left');
	oracle_ok($look, 'runs that race, after the next run');
	$three->close;
	return;
}

sub rows_of_others
{
	my ($source, $hold, $how) = @_;
	my $name = "$source, rows $how";

	restage($look, 1, 600, 7);
	foreach my $workers (0, 2)
	{
		$one->query("BEGIN; $hold");
		is($two->query("SELECT status, remaining FROM epro_etl.run('mood', workers => $workers)"), 'succeeded|10', "$name: left and counted by $workers workers");
		is(status_of($look, 'remaining'), 10, "$name: by the ledger, too");
		is($look->query('SELECT min(response_id), max(response_id), count(*) FROM staging'), '201|210|10', "$name: they are where they were");
		$one->query('ROLLBACK');
		oracle_ok($look, "$name, $workers workers");
	}
	$one->query("BEGIN; $hold");
	$one->query('COMMIT');
	my $left = $look->query('SELECT count(*) FROM staging');
	$look->query('DELETE FROM put_in WHERE response_id BETWEEN 201 AND 210') if $left eq '0';
	is($two->query(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 2)}), "succeeded|$left|0", "$name: taken when they are free");
	is($look->query(q{SELECT count(*) FROM mood_sink WHERE visit = 'changed'}), $look->query('SELECT count(*) FROM mood_sink WHERE source_id BETWEEN 201 AND 210'),
		"$name: as they are then") if $how eq 'being updated';
	oracle_ok($look, "$name, after the next run");
	return;
}

# What is staged after the run has begun is the next run's, or this one's, and
# in no case lost.
sub staged_meanwhile
{
	my ($source) = @_;

	restage($look, 1, 600, 7);
	close_gate($look, 225);
	$one->send(q{SELECT status FROM epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), "$source, staged meanwhile: the worker is in its chunk");
	stage($look, 601, 1200, 7);
	open_gates($look);
	is(($one->wait)[0], 'succeeded', "$source, staged meanwhile: the run succeeds");
	oracle_ok($look, "$source, staged meanwhile");
	$two->query(q{SELECT epro_etl.run('mood', workers => 2)});
	is($look->query('SELECT count(*) FROM staging'), 0, "$source, staged meanwhile: the next run does the rest");
	oracle_ok($look, "$source, staged meanwhile, after the next run");
	return;
}

# Two runs that hold a key each and want the other's: one is rolled back by the
# deadlock detector, tries again, and finds duplicates.
sub crossing_keys
{
	my $name = 'keys that cross';
	my $deadlocks = $look->query('SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()');

	restage($look);
	$look->query('CREATE TABLE staging2 (LIKE staging)');
	$look->query(q{SELECT epro_etl.create_pipeline('mood2', 'staging2', '{"id": "response_id"}'); SELECT epro_etl.add_sink('mood2', 'MOOD', 'mood_sink')});
	# not by the trigger of the gates, which waits for the key, but for the second row of each
	$look->query(q{CREATE FUNCTION second_row() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.note = 'second' THEN PERFORM pg_advisory_xact_lock_shared(77, 1); END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER second_row BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION second_row()});
	$look->query(q{
		WITH a AS (INSERT INTO staging VALUES (1, 'ST01', 'MOOD', 'S-1', NULL, NULL, '{"mood01": 1, "note": "first"}'),
			(2, 'ST01', 'MOOD', 'S-1', NULL, NULL, '{"mood01": 1, "note": "second"}') RETURNING response_id),
		b AS (INSERT INTO staging2 VALUES (2, 'ST01', 'MOOD', 'S-1', NULL, NULL, '{"mood01": 2, "note": "first"}'),
			(1, 'ST01', 'MOOD', 'S-1', NULL, NULL, '{"mood01": 2, "note": "second"}') RETURNING response_id)
		INSERT INTO put_in (response_id) SELECT * FROM a UNION ALL SELECT * FROM b});
	$look->query('SELECT pg_advisory_lock(77, 1)');
	$one->send(q{SELECT status, claimed, loaded + duplicate FROM epro_etl.run('mood', workers => 1)});
	$two->send(q{SELECT status, claimed, loaded + duplicate FROM epro_etl.run('mood2', workers => 1)});
	ok(await_gate($look, 2), "$name: each run holds one");
	open_gates($look);
	is(($_->wait)[0], 'succeeded|2|2', "$name: both runs succeed") foreach ($one, $two);
	is($look->query('SELECT sum(loaded), sum(duplicate) FROM epro_etl.run_history'), '2|2', "$name: one of them loads, the other's are duplicates");
	# a worker that goes on after a deadlock does not log it; the statistics know
	cmp_ok($look->query('SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()'), '>', $deadlocks, "$name: it was a deadlock");
	oracle_ok($look, $name, sources => [ 'staging', 'staging2' ]);
	$look->query('DROP TRIGGER second_row ON mood_sink');
	return;
}

# A lock that the caller itself holds, and its workers want, is a deadlock that
# the server cannot see: the caller waits for them on a latch. It must end by
# itself, in whatever way, and not only when somebody loses patience.
sub callers_own_lock
{
	my ($lock) = @_;
	my $name = "the caller holds $lock";

	restage($look, 1, 600, 7);
	$one->query("SET statement_timeout = '5s'");
	$one->query("BEGIN; LOCK TABLE $lock");
	my ($out, $error) = $one->try(q{SELECT status FROM epro_etl.run('mood', workers => 2)});
	my $told = sqlstate($error);
	ok($out eq 'succeeded' || ($told ne '' && $told ne '57014'), "$name: the run ends by itself")
	  or diag("status \"$out\", SQLSTATE \"$told\"");
	is(survivors($look), 0, "$name: no worker survived");
	$one->query('COMMIT');
	$one->query('RESET statement_timeout');
	oracle_ok($look, $name);
	return;
}

# Another session's lock is waited for, within the caller's deadline.
sub lock_of_another
{
	my $name = 'another session holds the sink';

	restage($look, 1, 600, 7);
	$two->query('BEGIN; LOCK TABLE mood_sink IN SHARE MODE');
	$one->send(q{SELECT status FROM epro_etl.run('mood', workers => 1)});
	ok(until_true($look, q{SELECT count(*) FROM pg_locks WHERE relation = 'mood_sink'::regclass AND NOT granted}, 1), "$name: the worker waits");
	$two->query('COMMIT');
	is(($one->wait)[0], 'succeeded', "$name: and goes on");
	oracle_ok($look, $name);

	restage($look, 1, 600, 7);
	$two->query('BEGIN; LOCK TABLE mood_sink IN SHARE MODE');
	my ($out, $error) = $one->try(q{SELECT status FROM epro_etl.run('mood', workers => 2, timeout => '300ms')});
	is(sqlstate($error), 'EP001', "$name: until the run's time is over");
	is(survivors($look), 0, "$name: no worker survived");
	$two->query('COMMIT');
	is(status_of($look), 'timed out', "$name: status");
	oracle_ok($look, "$name, timed out");
	return;
}

# A chunk whose second try breaks off in its first range must not lose the
# ranges that its first try had read. Sequences tell the tries apart: they do
# not roll back.
sub retried_twice
{
	my $name = 'a chunk that is retried twice';

	restage($look, 1, 600, 7);
	$look->query(q{CREATE SEQUENCE sink_calls; CREATE SEQUENCE source_calls;
		CREATE FUNCTION sink_fails() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			IF nextval('public.sink_calls') = 1 THEN RAISE 'again' USING ERRCODE = '40001'; END IF; RETURN NEW; END$$;
		CREATE FUNCTION source_fails() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
			IF (SELECT is_called FROM public.sink_calls) AND nextval('public.source_calls') = 1 THEN RAISE 'again' USING ERRCODE = '40001'; END IF; RETURN OLD; END$$;
		CREATE TRIGGER sink_fails BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION sink_fails();
		CREATE TRIGGER source_fails BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION source_fails()});
	$one->query('SET epro_etl.batch_size = 300');
	is($one->query(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 1)}), 'succeeded|600|0', "$name: the run succeeds, with all of them");
	$one->query('RESET epro_etl.batch_size');
	is($look->query('SELECT s.is_called AND t.is_called FROM sink_calls s, source_calls t'), 't', "$name: both tries were broken off");
	is($look->query('SELECT count(*) FROM staging'), 0, "$name: nothing is left behind");
	oracle_ok($look, $name);
	$look->query('DROP TRIGGER sink_fails ON mood_sink; DROP TRIGGER source_fails ON staging');
	return;
}
