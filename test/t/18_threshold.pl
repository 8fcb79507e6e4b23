# Batch thresholds with workers: all of them judge before any takes a response,
# what they count adds up, and whatever ends that first pass leaves all in staging.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

use constant ROWS => 10_000;
# every seventh breaks "maximum"
use constant BROKEN => 1428;

my $node = create_node('threshold');
create_fixture($node, gates => 0);
my $look = observer($node);

# A gate in the judging: an edit check that waits for the test's lock.
$look->query(<<'SQL');
CREATE FUNCTION judged(note text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(77, id::int) FROM public.gate WHERE note = 'note of ' || id;
    RETURN true;
END $$;
SELECT epro_etl.add_edit_check('MOOD', 'gate', 'public.judged(note)');
SQL

parts(__PACKAGE__, qw(held passes dry_run nobody_takes_before_all_have_judged ended locked_and_late every_form job));

$look->close;
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/,
	'no process crashed');
done_testing();

sub threshold
{
	my ($ratio, $more) = @_;
	$more ||= '';
	$look->query(qq{SELECT epro_etl.add_check('MOOD', 'too sad', 'batch_threshold', '{"rule": "/mood01/maximum", "max_ratio": $ratio$more}')});
	return;
}

# Nothing has happened: all is in staging, and no process is left.
sub untouched_ok
{
	my ($name, $rows) = @_;
	$rows ||= ROWS;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(survivors($look), 0, "$name: no worker is left");
	is( $look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.quarantine), (SELECT count(*) FROM epro_etl.finding)'),
		"$rows|0|0|0", "$name: all is in staging, nothing else has anything");
	return oracle_ok($look, $name);
}

sub held
{
	threshold(0.1);
	restage($look, 1, ROWS, 7);
	foreach my $workers (1, 2, 4)
	{
		my $caller = EproTest::Psql->new($node);
		my ($out, $error) = $caller->try("SELECT epro_etl.run('mood', workers => $workers)");

		is(sqlstate($error), 'EP007', "$workers workers: held");
		like($error, qr/batch threshold "too sad" of form "MOOD" holds the run: @{[BROKEN]} of @{[ROWS]} responses break the rule "\/mood01\/maximum"/,
			"$workers workers: what they counted adds up");
		like($error, qr/HINT: .*dry_run/, "$workers workers: what to do");
		is(status_of($look, 'status, sqlstate, claimed, rejected, chunks, workers, remaining'), "stopped|EP007|0|0|0|$workers|@{[ROWS]}", "$workers workers: the ledger");
		untouched_ok("$workers workers held");
		$caller->close;
	}
	is($look->query(q{SELECT t.check_name FROM epro_etl.run_history h, jsonb_array_elements_text(h.versions->'MOOD'->'batch_thresholds') i
		JOIN epro_etl.batch_threshold t ON t.threshold_id = i::bigint ORDER BY run_id DESC LIMIT 1}), 'too sad', 'the ledger names the threshold that held');
	return;
}

# As many as may: the run is as any other.
sub passes
{
	threshold(0.1428);
	foreach my $workers (0, 2, 4)
	{
		restage($look, 1, ROWS, 7);
		is( $look->query("SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('mood', workers => $workers)"),
			'succeeded|10000|8572|1428|0', "$workers workers: passes");
		oracle_ok($look, "$workers workers: passes");
		is($look->query('SELECT count(*) FROM epro_etl.finding'), BROKEN, "$workers workers: the first pass has written no finding");
	}
	# a limit of the run's own comes after it
	restage($look, 1, ROWS, 7);
	is($look->query(q{SELECT status, claimed < 10000 FROM epro_etl.run('mood', workers => 2, max_rejects => 20)}), 'stopped|t', 'max_rejects holds as well');
	oracle_ok($look, 'max_rejects as well');
	return;
}

sub dry_run
{
	threshold(0.1);
	foreach my $workers (0, 2)
	{
		restage($look, 1, ROWS, 7);
		my $caller = EproTest::Psql->new($node);
		my ($out, $error) = $caller->try("SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('mood', workers => $workers, dry_run => true)");

		is($out, 'stopped|10000|8572|1428|0', "dry run, $workers workers: would be held");
		like($error, qr/WARNING:  EP007: .* would hold the run: @{[BROKEN]} of @{[ROWS]}/, "dry run, $workers workers: it says so");
		is(status_of($look, 'status, sqlstate, dry_run, claimed'), 'stopped|EP007|t|10000', "dry run, $workers workers: the ledger");
		is($look->query(q{SELECT count(*) FROM epro_etl.finding WHERE rule = 'maximum'}), BROKEN, "dry run, $workers workers: and which they are");
		oracle_ok($look, "dry run, $workers workers");
		$caller->close;
	}
	threshold(0.2);
	restage($look, 1, ROWS, 7);
	is($look->query(q{SELECT status FROM epro_etl.run('mood', workers => 2, dry_run => true)}), 'succeeded', 'dry run: would not be held');
	return;
}

# One worker is kept in its judging; the other has done all the rest, and waits:
# without a transaction, and without having taken anything.
sub nobody_takes_before_all_have_judged
{
	foreach my $case ([ 0.2, 'goes on' ], [ 0.1, 'is held' ])
	{
		my ($ratio, $name) = @$case;
		my $caller = EproTest::Psql->new($node);

		threshold($ratio);
		restage($look, 1, ROWS, 7);
		close_gate($look, 30);
		$caller->send(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)});
		ok(await_gate($look), "$name: one worker is in its judging");
		ok(until_true($look, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' AND xact_start IS NULL AND wait_event = 'Extension'}),
			"$name: the other waits, without a transaction");
		is($look->query('SELECT (SELECT count(*) FROM mood_sink), (SELECT sum(claimed) FROM epro_etl.run_worker)'), '0|0', "$name: and has taken nothing");
		open_gates($look);
		my ($out, $error) = $caller->wait;
		is($out . sqlstate($error), $ratio > 0.15 ? 'succeeded|10000' : 'EP007', "$name: the end");
		$ratio > 0.15 ? oracle_ok($look, $name) : untouched_ok($name);
		$caller->close;
	}
	return;
}

# The first pass ends like the run's own: with all workers, and the first cause.
sub ended
{
	my @ends = (
		[ 'cancel', '', sub { $look->query('SELECT pg_cancel_backend(' . $_[0]->backend . ')') }, '57014', 'canceled' ],
		[ 'terminate', '', sub { $look->query('SELECT pg_terminate_backend(' . $_[0]->backend . ')') }, '57P01', 'canceled' ],
		[ 'timeout of the run', q{, timeout => '500ms'}, sub { }, 'EP001', 'timed out' ],
		[ 'cancel_run()', '', sub { $look->query('SELECT epro_etl.cancel_run((SELECT max(run_id) FROM epro_etl.run_ledger))') }, '57014', 'canceled' ],
		[ 'the worker that judges is terminated', '', sub { $look->query(q{SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}) }, '57P01', 'failed' ],
		[ 'the worker that waits is terminated', '', sub { $look->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' AND xact_start IS NULL}) }, '57P01', 'failed' ],
		[ 'the rule fails for good', '', sub {
			$look->query(q{CREATE OR REPLACE FUNCTION judged(note text) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RAISE SQLSTATE ''53200''; END'});
			open_gates($look) }, '53200', 'failed' ],
	);

	my $judged = $look->query(q{SELECT pg_get_functiondef('judged'::regproc)});
	threshold(0.2);
	foreach my $end (@ends)
	{
		my ($name, $arguments, $now, $sqlstate, $status) = @$end;
		my $caller = EproTest::Psql->new($node);

		restage($look, 1, ROWS, 7);
		close_gate($look, 30);
		$caller->send("SELECT epro_etl.run('mood', workers => 2$arguments)");
		# a time of its own may be over before they stand there
		ok(await_gate($look), "$name: one worker is in its judging") unless $arguments;
		ok(until_true($look, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' AND xact_start IS NULL AND wait_event = 'Extension'}),
			"$name: the other waits") unless $arguments;
		$now->($caller);
		my ($out, $error) = $caller->wait;
		is(sqlstate($error), $sqlstate, "$name: the SQLSTATE");
		# who was terminated is gone before its workers
		ok(until_true($look, q{SELECT count(*) = 0 FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'}), "$name: the workers end");
		is(status_of($look), $status, "$name: the ledger");
		untouched_ok($name);
		open_gates($look);
		$caller->close;
		$look->query($judged);
	}
	is($look->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)}), 'succeeded|10000', 'and the next run does all');
	oracle_ok($look, 'the next run');
	return;
}

# What others hold is judged, and left; what comes after the first pass is not counted.
sub locked_and_late
{
	my $other = EproTest::Psql->new($node);
	my $caller = EproTest::Psql->new($node);

	threshold(0.2);
	restage($look, 1, ROWS, 7);
	$other->query('BEGIN; SELECT FROM staging WHERE response_id <= 100 FOR UPDATE');
	is($look->query(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 2)}), 'succeeded|9900|100', 'rows that others have locked stay');
	$other->query('COMMIT');
	oracle_ok($look, 'locked rows');

	restage($look, 1, ROWS);
	close_gate($look, 30);
	$caller->send(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)});
	ok(await_gate($look), 'late rows: one worker is in its judging');
	# into blocks that were not there at the start: these are the next run's
	stage($look, ROWS + 1, 2 * ROWS, 2);
	open_gates($look);
	my ($out, $error) = $caller->wait;
	like($out, qr/^succeeded\|10\d\d\d$/, 'late rows hold nothing');
	oracle_ok($look, 'late rows');
	($out, $error) = $caller->try(q{SELECT epro_etl.run('mood', workers => 2)});
	is(sqlstate($error), 'EP007', 'late rows: but they do the next run');
	oracle_ok($look, 'late rows, held');
	$other->close;
	$caller->close;
	return;
}

# Several thresholds, of two forms: each has its own count.
sub every_form
{
	$look->query(<<'SQL');
SELECT epro_etl.remove_edit_check('MOOD', 'too sad');
SELECT epro_etl.register_form('SLEEP', '{"properties": {"mood02": {"type": "integer", "maximum": 1}}}');
SELECT epro_etl.create_sink('mood', 'SLEEP', 'sleep_sink');
SELECT epro_etl.add_check('MOOD', 'a', 'batch_threshold', '{"rule": "/mood01/maximum", "max_ratio": 0.5}');
SELECT epro_etl.add_check('SLEEP', 'b', 'batch_threshold', '{"rule": "/mood02/maximum", "max_ratio": 0.33, "minimum": 5000}');
SELECT epro_etl.add_check('SLEEP', 'c', 'batch_threshold', '{"rule": "/mood02/maximum", "max_ratio": 0.33, "minimum": 5001}');
SQL
	restage($look, 1, ROWS, 7);
	$look->query(q{UPDATE staging SET form = 'SLEEP' WHERE response_id % 2 = 0});
	my ($out, $error) = $look->try(q{SELECT epro_etl.run('mood', workers => 2)});
	like($error, qr/batch threshold "b" of form "SLEEP" holds the run: 1667 of 5000 /, 'each form by its own count');
	oracle_ok($look, 'two forms, held', sinks => [ 'mood_sink', 'sleep_sink' ]);
	$look->query(q{SELECT epro_etl.remove_edit_check('SLEEP', 'b')});
	is($look->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)}), 'succeeded|10000', 'too few for the other');
	oracle_ok($look, 'two forms', sinks => [ 'mood_sink', 'sleep_sink' ]);
	$look->query(q{TRUNCATE sleep_sink; SELECT epro_etl.remove_sink('mood', 'SLEEP', 'sleep_sink'); SELECT epro_etl.remove_edit_check('MOOD', 'a')});
	return;
}

# For schedulers, and for those who wait elsewhere.
sub job
{
	my $caller = EproTest::Psql->new($node);

	threshold(0.1);
	restage($look, 1, ROWS, 7);
	my ($out, $error) = $caller->try(q{CALL epro_etl.run_job('mood', workers => 2)});
	is(sqlstate($error), 'EP007', 'run_job(): an error for the scheduler');
	untouched_ok('run_job()');
	my $run = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 2)});
	is($look->query("SELECT status, claimed FROM epro_etl.wait_run($run)"), 'stopped|0', 'wait_run() elsewhere: how it ended');
	($out, $error) = $caller->try("SELECT epro_etl.wait_run($run)");
	is(sqlstate($error), 'EP007', 'wait_run() of the session that started it: the error');
	untouched_ok('start_run()');
	$caller->close;
	return;
}
