# A stream from its start to its stop: whatever is committed to the source
# arrives, once, in whatever way the stages are cut; rows that change or are
# locked on their way; what waits when a sink does; how a stream is started,
# woken and stopped, and as whom it acts.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;
use Time::HiRes qw(sleep);

# In no other text of this test: what is found of it has leaked.
my $marker = 'Zq8Planted';

my $node = create_node('stream', conf => "epro_etl.naptime = '100ms'\nmax_prepared_transactions = 5\n");
create_fixture($node);
my $look = observer($node);
my $one = EproTest::Psql->new($node);
my $two = EproTest::Psql->new($node);

my $to_store = '{"store": 1}';
my $to_all = '{"decode": 1, "deidentify": 2, "normalise": 1, "validate": 2, "store": 2}';
my @cuts = ([ 'not cut', undef ], [ 'two groups', '{"validate": 1, "store": 1}' ], [ 'one group', $to_store ], [ 'five groups', $to_all ]);
# where all that is stored goes past one gate
my @narrow = (@cuts[ 1, 2 ], [ 'five groups to one worker', '{"decode": 1, "deidentify": 2, "normalise": 1, "validate": 2, "store": 1}' ]);

parts('main', qw(
	arrives same_as_batch any_answer changed_on_their_way rewritten_source locked large waits_for_its_sink
	starts stops stop_is_taken_back starts_and_stops_meet restless wakes slow_source side_by_side roles planted));

$_->close foreach ($look, $one, $two);
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'no process crashed');
done_testing();

sub arrives
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;

		restage($look, 1, 300, 7);
		ok(start_stream($one, $stages), "$name: it runs");
		my $writer = writer($node, 301, 1500, 7);
		$writer->wait;
		ok(await_arrived($look, 1500), "$name: all has arrived");
		ok(await_stream($look, 'in_flight = 0 AND held = 0 AND lag IS NULL'), "$name: nothing is on its way any more");
		is(stream_shows($look, 'stored, generations, failures, latency_p50_ms > 0, latency_p99_ms >= latency_p50_ms, login, role'),
			'1500|1|0|t|t|postgres|postgres', "$name: stat_stream");
		is($look->query('SELECT count(*) FROM epro_etl.stat_channel WHERE depth = 0 AND sent = received AND sent >= 1500 AND NOT closed'),
			{ 'not cut' => 1, 'one group' => 1, 'two groups' => 2, 'five groups' => 5 }->{$name}, "$name: stat_channel");
		is($look->query(q{SELECT bool_and(s.run_id = p.run_id), count(*) = min(s.workers), sum(tuples_excluded), bool_and(p.phase = 'waiting for rows')
				FROM epro_etl.stat_progress p, epro_etl.stat_stream s}), 't|t|214|t', "$name: stat_progress");
		is(status_of($look, 'status, reason, stream'), 'running|stream|t', "$name: the ledger has it while it goes on");
		stop_stream_ok($one, $name);
		is(status_of($look, 'status, claimed, loaded, rejected'), 'succeeded|1500|1286|214', "$name: the ledger");
		is($look->query('SELECT count(*) FROM staging'), 0, "$name: staging is empty");
		answers_ok($look, $name);
		oracle_ok($look, $name);
		$writer->close;
	}
	return;
}

# Rejected, unknown, doubled: a stream says what a batch says.
sub same_as_batch
{
	my $said = q{SELECT string_agg(concat_ws('|', source_id, form, location, rule, kind, severity, message), E'\n' ORDER BY source_id::int, rule, location) FROM epro_etl.finding};
	my $kept = q{SELECT string_agg(concat_ws('|', source_id, form, original, tries), E'\n' ORDER BY source_id::int, quarantine_id) FROM epro_etl.quarantine};
	my $set = sub {
		restage($look, 1, 200, 7);
		$look->query(q{UPDATE staging SET form = 'NOSUCH' WHERE response_id % 31 = 0;
			UPDATE staging SET form = NULL WHERE response_id = 17;
			UPDATE staging SET subject = NULL WHERE response_id = 18;
			UPDATE staging SET payload = '[]' WHERE response_id = 19;
			UPDATE staging SET payload = NULL WHERE response_id = 20;
			UPDATE staging SET payload = '{"mood01": "x", "mood02": [1]}' WHERE response_id = 23});
		$look->query(q{INSERT INTO mood_sink (source_id, subject_key, form, form_version, note, run_id, loaded_at) VALUES (24, 'k', 'MOOD', '1', 'was there', 0, now())});
	};

	$set->();
	$one->query(q{SELECT epro_etl.run('mood', workers => 2)});
	my ($findings, $quarantine) = ($look->query($said), $look->query($kept));
	my $counts = status_of($look, 'claimed, loaded, warned, rejected, duplicate');
	like($findings, qr/^24\|.*\n/m, 'as a batch: the one that is there already');
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;

		$set->();
		start_stream($one, $stages);
		ok(until_true($look, 'SELECT count(*) FROM staging', 0), "as a batch, $name: all has left");
		$one->query(q{SELECT epro_etl.stop_stream('mood')});
		is($look->query($said), $findings, "as a batch, $name: findings");
		is($look->query($kept), $quarantine, "as a batch, $name: quarantine");
		is(status_of($look, 'claimed, loaded, warned, rejected, duplicate'), $counts, "as a batch, $name: counts");
	}
	return;
}

# Whatever the answers are, wherever the stages are cut: as a batch has it.
sub any_answer
{
	$look->query(q{SELECT epro_etl.register_form('MANY', '{"x-normalise": ["trim", "width", "coerce", "fold", "blank"], "required": ["i"], "properties": {
			"i": {"type": "integer", "minimum": -10, "maximum": 10}, "x": {"type": "number"}, "b": {"type": "boolean"},
			"c": {"type": "string", "enum": ["MILD", "SEVERE", "Na2"]}, "d": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"},
			"t": {"type": "string", "format": "time"}, "kit": {"type": "string", "pattern": "^KIT-[0-9]{2}$"}, "both": {"type": ["integer", "string"]},
			"nul": {"type": ["integer", "null"]}, "s": {"type": "string", "x-normalise": []}, "note": {"type": "string"}, "mail": {"type": "string"},
			"born": {"type": "string", "format": "date"}, "g": {"type": "object", "required": ["z"], "properties": {"z": {"type": "integer"}, "e": {"type": "string"}}}}}');
		SELECT epro_etl.set_deid('MANY', '/note', 'redact');
		SELECT epro_etl.set_deid('MANY', '/mail', 'remove');
		SELECT epro_etl.set_deid('MANY', '/born', 'generalize', '{"to": "age"}');
		SELECT epro_etl.add_edit_check('MANY', 'old', 'born > 70', 'warning');
		SELECT epro_etl.add_edit_check('MANY', 'sum', 'i + x < 100 OR NOT b');
		SELECT epro_etl.add_edit_check('MANY', 'number', 's::int > 0', 'warning', 's IS NOT NULL');
		CREATE TABLE answers (id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, payload text);
		SELECT epro_etl.create_pipeline('many', 'answers', '{}');
		SELECT epro_etl.create_sink('many', 'MANY', 'many_sink');
		SELECT epro_etl.create_sink('many', 'MANY', 'many_long', 'long')});
	# most are good; which is bad, and how, is the same each time
	$look->query(q~CREATE FUNCTION make_answers() RETURNS void LANGUAGE sql AS $$
		INSERT INTO answers
		SELECT n, 'ST0' || n % 3, CASE WHEN n % 97 = 0 THEN 'NOSUCH' WHEN n % 101 = 0 THEN NULL ELSE 'MANY' END, nullif('S' || n % 50, 'S13'), nullif('V' || n % 4, 'V0'),
			CASE WHEN n % 11 > 0 THEN '2024-02-29 12:00Z'::timestamptz + n * interval '1 day' END,
			CASE n % 103 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN '[]' WHEN 3 THEN 'null' WHEN 4 THEN '{"i": 1' WHEN 5 THEN '{"i": 1, "i": 2}' WHEN 6 THEN '{"i": 1} x'
				WHEN 7 THEN '{"i": 1, "s": "a\\u0000b"}' WHEN 8 THEN '{"i": 1, "nosuch": 3}' WHEN 9 THEN '{"i": 1, "s": "' || repeat('long ', 4000) || '"}'
			ELSE (SELECT '{' || string_agg(format('"%s": %s', item, CASE WHEN h % 60 = 0 THEN junk[1 + (h / 60) % cardinality(junk)] ELSE good[1 + (h / 60) % cardinality(good)] END), ', ') || '}'
				FROM (SELECT item, good, abs(hashtext(item || n)) AS h FROM (VALUES
					('i', ARRAY['3', '-10', '"7"', '" ３ "', '7.0']), ('x', ARRAY['1.50', '0', '1e2', '"0.1000000000000000000000001"', '-12345678901234567890.5']), ('b', ARRAY['false', '"false"', 'true']),
					('c', ARRAY['"MILD"', '"mild"', '" Na2"']), ('d', ARRAY['"2020-02-29"', '"0001-01-01"', '""']), ('at', ARRAY['"2020-01-01T10:00:00Z"', '"2020-06-30T23:59:59.123456-05:00"']),
					('t', ARRAY['"10:00:00Z"', '"23:59:59.5+02:00"']), ('kit', ARRAY['"KIT-12"']), ('both', ARRAY['1', '"one"', '""']), ('nul', ARRAY['null', '5']),
					('s', ARRAY['"1"', '"x"', '"ｶﾅ漢字é"', '"a\\nb\\t\\"c\\""', '"\\ud83d\\ude00"', '"  "']), ('note', ARRAY['"told"', '""']), ('mail', ARRAY['"a@b"', '5']),
					('born', ARRAY['"1950-05-06"', '"1999-12-31"', '"1900-01-01"']), ('g', ARRAY['{"z": 1}', '{"z": "2", "e": "x"}', '{"z": 3, "e": null}'])) v (item, good)) w
				CROSS JOIN (SELECT ARRAY['3', '"3"', '1e400', '99', 'true', 'null', '""', '"x"', '"2020-02-30"', '[]', '[1, {"a": 2}]', '{}', '{"z": {"z": 1}}', '"' || repeat('w', 9000) || '"', '-0.0', '"\\ud800"']) j (junk)
				WHERE h % 10 > 0) END
		FROM generate_series(1, 1500) n $$~);
	my @compared = (
		q{SELECT string_agg((to_jsonb(line) - 'run_id' - 'loaded_at')::text, E'\n' ORDER BY source_id) FROM many_sink line},
		q{SELECT string_agg((to_jsonb(line) - 'run_id' - 'loaded_at')::text, E'\n' ORDER BY (to_jsonb(line) - 'run_id' - 'loaded_at')::text) FROM many_long line},
		q{SELECT string_agg(f, E'\n' ORDER BY f) FROM (SELECT (to_jsonb(f) - 'run_id')::text AS f FROM epro_etl.finding f) x},
		q{SELECT string_agg(q, E'\n' ORDER BY q) FROM (SELECT (to_jsonb(q) - 'run_id' - 'quarantine_id' - 'first_try' - 'last_try')::text AS q FROM epro_etl.quarantine q) x},
		q{SELECT concat_ws('|', claimed, loaded, warned, rejected, duplicate) FROM epro_etl.run_history});
	my $set = sub {
		restage($look);
		$look->query('TRUNCATE answers, many_sink, many_long; SELECT make_answers()');
	};
	my @expected;

	$set->();
	$one->query(q{SELECT epro_etl.run('many', workers => 0)});
	push @expected, $look->query($_) foreach @compared;
	like($expected[4], qr/^1500\|\d{3,4}\|\d{2,4}\|\d{3,4}\|0$/, 'any answer: some are good, some are not') or diag($expected[4]);
	foreach my $stages (undef, map({ qq({"decode": 1, "$_": 1}) } qw(deidentify normalise validate store)), $to_all)
	{
		my $name = 'any answer, ' . ($stages || 'not cut');

		$set->();
		$one->query('SELECT epro_etl.start_stream(\'many\', ' . (defined $stages ? "'$stages'" : 'NULL') . ', 100)');
		ok(until_true($look, 'SELECT count(*) FROM answers', 0), "$name: all have left");
		is($one->query(q{SELECT epro_etl.stop_stream('many')}), 't', "$name: stopped");
		foreach my $i (0 .. $#compared)
		{
			my @got = split /\n/, $look->query($compared[$i]);
			my @wanted = split /\n/, $expected[$i];
			my ($at) = grep { ($got[$_] || '') ne ($wanted[$_] || '') } 0 .. ($#got > $#wanted ? $#got : $#wanted);
			my $what = (qw(sink long findings quarantine counts))[$i];

			ok(!defined $at, "$name: $what as in a batch") or diag('got:      ' . substr($got[$at] || '', 0, 1000) . "\nexpected: " . substr($wanted[$at] || '', 0, 1000));
		}
	}
	$look->query(q{SELECT epro_etl.drop_pipeline('many'); DROP TABLE answers, many_sink, many_long});
	return;
}

# What was read is not what is stored, if it has changed since.
sub changed_on_their_way
{
	foreach my $cut (@narrow)
	{
		my ($name, $stages) = @$cut;
		$name = "changed, $name";

		restage($look);
		close_gate($look, 1);
		start_stream($one, $stages);
		stage($look, 1, 600);
		ok(await_gate($look), "$name: a chunk waits");
		ok(await_stream($look, 'in_flight >= 500'), "$name: the rest is on its way");
		$two->query(q{UPDATE staging SET payload = payload || '{"note": "new note"}' WHERE response_id IN (300, 600);
			UPDATE put_in SET payload = payload || '{"note": "new note"}' WHERE response_id IN (300, 600);
			DELETE FROM staging WHERE response_id IN (400, 401);
			DELETE FROM put_in WHERE response_id IN (400, 401)});
		$two->query(q{BEGIN; UPDATE staging SET payload = payload || '{"note": "never"}' WHERE response_id = 500; DELETE FROM staging WHERE response_id = 501; ROLLBACK});
		open_gates($look);
		ok(await_arrived($look, 598), "$name: what is there has arrived");
		is($look->query(q{SELECT string_agg(source_id::text, ' ' ORDER BY source_id) FROM mood_sink WHERE note = 'new note'}), '300 600', "$name: in its new version");
		answers_ok($look, $name);
		stop_stream_ok($one, $name);
		is($look->query('SELECT count(*) FROM staging'), 0, "$name: staging is empty");
		oracle_ok($look, $name);
	}
	return;
}

# An address means something else after the table was written anew, and the rows
# of one transaction cannot be told apart by their version.
sub rewritten_source
{
	foreach my $how ('VACUUM FULL staging', 'CLUSTER staging USING staging_pkey')
	{
		foreach my $cut (@narrow)
		{
			my ($name, $stages) = @$cut;
			$name = "$how, $name";

			restage($look);
			# in the second chunk: what the first has left is room by now
			close_gate($look, 75);
			start_stream($one, $stages);
			stage($look, 1, 1000);
			ok(await_gate($look), "$name: a chunk waits");
			ok(await_stream($look, 'in_flight >= 500'), "$name: the rest is on its way");
			$two->send($how);
			ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'staging'::regclass AND NOT granted}), "$name: it waits for the chunk");
			open_gates($look);
			$two->wait;
			ok(await_arrived($look, 1000), "$name: all has arrived");
			answers_ok($look, $name);
			stop_stream_ok($one, $name);
			oracle_ok($look, $name);
		}
	}

	# other rows where the first were: the worker is stopped between two
	# transactions, since one that is open would keep their places
	foreach my $slow (0, 1)
	{
		my $name = 'places reused, ' . ($slow ? 'delete trigger' : 'plain');

		restage($look);
		$look->query(q{CREATE OR REPLACE FUNCTION as_is() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
			CREATE TRIGGER as_is BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION as_is()}) if $slow;
		start_stream($one, '{"validate": 1, "store": 1}');
		my $pid = stream_pid($look, 'store');
		ok(until_true($look, "SELECT phase FROM epro_etl.stat_progress WHERE pid = $pid", 'waiting for rows'), "$name: the worker waits");
		kill 'STOP', $pid;
		stage($look, 1, 100);
		ok(until_true($look, q{SELECT depth FROM epro_etl.stat_channel WHERE stage = 'store'}, 100), "$name: they stand before it");
		$two->query('DELETE FROM staging; DELETE FROM put_in');
		$two->query('VACUUM (TRUNCATE false) staging');
		stage($look, 1001, 1100);
		is($look->query('SELECT min(ctid) FROM staging'), '(0,1)', "$name: others are in their places");
		kill 'CONT', $pid;
		ok(await_arrived($look, 100), "$name: these have arrived");
		answers_ok($look, $name);
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);
		$look->query('DROP TRIGGER as_is ON staging') if $slow;
	}

	# emptied, and filled again
	restage($look);
	close_gate($look, 1);
	start_stream($one, $to_store);
	stage($look, 1, 1000);
	ok(await_gate($look), 'TRUNCATE: a chunk waits');
	$two->send('BEGIN; TRUNCATE staging; DELETE FROM put_in WHERE response_id > 50; SELECT stage(2001, 2600); COMMIT');
	ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'staging'::regclass AND NOT granted}), 'TRUNCATE: it waits for the chunk');
	open_gates($look);
	$two->wait;
	ok(await_arrived($look, 650), 'TRUNCATE: all has arrived');
	answers_ok($look, 'TRUNCATE');
	stop_stream_ok($one, 'TRUNCATE');
	oracle_ok($look, 'TRUNCATE');
	return;
}

# Who has locked a row holds that row, and no other.
sub locked
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "locked, $name";

		restage($look, 1, 300);
		$two->query('BEGIN; SELECT FROM staging WHERE response_id IN (5, 6, 299) FOR UPDATE; SELECT FROM staging WHERE response_id = 7 FOR KEY SHARE');
		start_stream($one, $stages);
		ok(await_arrived($look, 296), "$name: the others have arrived");
		ok(await_stream($look, 'held = 4 AND in_flight <= 4'), "$name: four are held") or diag(stream_shows($look, 'held, in_flight'));
		stage($look, 301, 400);
		ok(await_arrived($look, 396), "$name: others go on arriving");
		is($look->query(q{SELECT string_agg(response_id::text, ' ' ORDER BY response_id) FROM staging}), '5 6 7 299', "$name: these are there");
		$two->query('COMMIT');
		ok(await_arrived($look, 400), "$name: they arrive when they are free");
		ok(await_stream($look, 'held = 0 AND in_flight = 0'), "$name: none is held any more");

		# a lock that becomes a change
		$two->query('BEGIN');
		stage($look, 401, 403);
		$two->query(q{SELECT 1});
		stop_stream_ok($one, $name);
		$two->query('COMMIT');
		answers_ok($look, $name);
		oracle_ok($look, $name);
	}

	# held rows end with the stream, and a drain does not wait for them
	restage($look, 1, 100);
	$two->query('BEGIN; SELECT FROM staging WHERE response_id = 5 FOR UPDATE');
	start_stream($one, $to_store);
	ok(await_arrived($look, 99), 'locked, drain: the others have arrived');
	stop_stream_ok($one, 'locked, drain');
	is($look->query('SELECT count(*) FROM staging'), 1, 'locked, drain: it is in staging');
	$two->query('COMMIT');
	oracle_ok($look, 'locked, drain');
	return;
}

# What does not fit into a channel's message goes by its address.
sub large
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "large, $name";

		restage($look);
		$look->query(q{WITH made AS (
			INSERT INTO staging SELECT g, 'ST01', 'MOOD', 'S-' || g, 'V1', now(),
				jsonb_build_object('mood01', CASE WHEN g % 5 = 0 THEN 9 ELSE 1 END, 'mood02', g, 'note', g || repeat(chr(945 + g::int % 3), n))
			FROM unnest(ARRAY[0, 10, 3900, 4000, 4050, 4090, 4096, 4100, 8000, 8100, 8180, 8190, 8192, 8200, 20000, 100000, 500000]) WITH ORDINALITY u (n, g)
			RETURNING response_id, payload)
			INSERT INTO put_in (response_id, payload) SELECT response_id, payload FROM made});
		start_stream($one, $stages, 4);
		ok(await_arrived($look, 17), "$name: all have arrived");
		is($look->query('SELECT count(*) FROM epro_etl.quarantine'), 3, "$name: the bad ones are in quarantine");
		answers_ok($look, $name);
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);
	}
	return;
}

# When the sink cannot take rows, they stay in staging; only so many are read.
sub waits_for_its_sink
{
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "sink away, $name";

		restage($look);
		start_stream($one, $stages, 20);
		$two->query('BEGIN; LOCK TABLE mood_sink IN ACCESS EXCLUSIVE MODE');
		my $writer = writer($node, 1, 2000, 7);
		my $most = $name =~ /not cut/ ? 20 + 2 * 50 : $name =~ /one group/ ? 20 + 50 : $name =~ /two/ ? 2 * 20 + 64 + 50 : 5 * 20 + 6 * 64 + 2 * 50;
		my $worst = 0;
		while ($writer->busy)
		{
			my ($depth, $flight) = split /\|/, $look->query('SELECT (SELECT max(depth - capacity) FROM epro_etl.stat_channel), (SELECT max(in_flight) FROM epro_etl.stat_stream)');
			$worst = $flight if $flight > $worst;
			fail("$name: a channel holds more than it may") if $depth > 0;
			sleep(0.05);
		}
		$writer->wait;
		ok(await_stream($look, 'lag > interval \'0\' AND in_flight > 20'), "$name: they wait");
		cmp_ok($worst, '<=', $most, "$name: only so many are read");
		is($look->query('SELECT count(*) FROM staging'), 2000, "$name: they stay in staging");
		is(stream_shows($look, 'state, stored, failures'), 'running|0|0', "$name: the stream is well");
		ok($look->query('SELECT min(depth) FROM epro_etl.stat_channel') > 0, "$name: they stand before each group");
		$two->query('COMMIT');
		ok(await_arrived($look, 2000), "$name: all arrive");
		answers_ok($look, $name);
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);
		$writer->close;
	}
	return;
}

sub starts
{
	# again: nothing happens, and it says so
	restage($look, 1, 100);
	start_stream($one, undef);
	ok(await_arrived($look, 100), 'start again: the first');
	my (undef, $error) = $one->try(q{SELECT epro_etl.start_stream('mood')});
	like($error, qr/NOTICE: .* is up already/, 'start again: a notice');
	stage($look, 101, 200);
	ok(await_arrived($look, 200), 'start again: it goes on');
	is(stream_shows($look, 'generations, workers'), '1|2', 'start again: as it was');

	# other stages: it goes over
	close_gate($look, 201);
	my $writer = writer($node, 201, 1500, 7);
	ok(await_gate($look), 'other stages: in traffic');
	($error) = ($one->try("SELECT epro_etl.start_stream('mood', '$to_all', 50)"))[1];
	like($error, qr/NOTICE: .* is up already/, 'other stages: a notice');
	ok(await_stream($look, q{state = 'draining'}), 'other stages: the old ones end in order');
	open_gates($look);
	ok(await_stream($look, q{state = 'running' AND generations = 2 AND workers = 8}), 'other stages: the new ones run');
	$writer->wait;
	ok(await_arrived($look, 1500), 'other stages: all has arrived');
	is($look->query('SELECT count(*), bool_and(capacity = 50) FROM epro_etl.stat_channel'), '5|t', 'other stages: the channels');
	foreach my $other ([ qq('$to_store', 50), 'other stages alone' ], [ qq('$to_store', 60), 'another queue alone' ])
	{
		my $before = stream_shows($look, 'generations');
		$one->query("SELECT epro_etl.start_stream('mood', $other->[0])");
		ok(await_stream($look, qq{state = 'running' AND generations = $before + 1 AND workers = 1}), "$other->[1]: taken over");
	}
	stop_stream_ok($one, 'other stages');
	is($look->query(q{SELECT string_agg(status, ' ' ORDER BY run_id) FROM epro_etl.run_history}), 'succeeded succeeded succeeded succeeded', 'other stages: a run each in the ledger');
	oracle_ok($look, 'other stages');
	$writer->close;

	# rolled back: there was nothing
	restage($look, 1, 100);
	$one->query(q{BEGIN; SELECT epro_etl.start_stream('mood')});
	$one->query('ROLLBACK');
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), 'start rolled back: no process is left');
	is(stream_shows($look, 'state'), '', 'start rolled back: no stream');
	is($look->query('SELECT count(*) FROM staging'), 100, 'start rolled back: nothing has moved');

	# begins when it is committed
	$one->query(q{BEGIN; SELECT epro_etl.start_stream('mood')});
	stage($look, 101, 150);
	sleep(0.3);
	is($look->query('SELECT count(*) FROM staging'), 150, 'start in a transaction: not yet');
	$one->query('COMMIT');
	ok(await_arrived($look, 150), 'start in a transaction: at its commit');
	stop_stream_ok($one, 'start in a transaction');
	oracle_ok($look, 'start in a transaction');

	# a part of the transaction is rolled back
	restage($look, 1, 100);
	$one->query(q{BEGIN; SAVEPOINT s; SELECT epro_etl.start_stream('mood'); ROLLBACK TO s; SELECT epro_etl.start_stream('mood'); COMMIT});
	ok(await_arrived($look, 100), 'start after a savepoint: it runs');
	stop_stream_ok($one, 'start after a savepoint');
	$one->query(q{BEGIN; SAVEPOINT s; SELECT epro_etl.start_stream('mood'); ROLLBACK TO s; COMMIT});
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), 'start in a savepoint rolled back: no process is left');
	oracle_ok($look, 'start after a savepoint');

	# prepared: begins when that is committed
	$one->query(q{BEGIN; SELECT epro_etl.start_stream('mood'); PREPARE TRANSACTION 'start'});
	stage($look, 101, 110);
	is($look->query('SELECT count(*) FROM staging'), 10, 'start prepared: not yet');
	$two->query(q{COMMIT PREPARED 'start'});
	ok(await_arrived($look, 110), 'start prepared: at its commit');
	stop_stream_ok($one, 'start prepared');
	oracle_ok($look, 'start prepared');

	foreach my $case (
		[ q{'nosuch'}, qr/^42704$/, 'a pipeline that is not there' ],
		[ q{'mood', '{"nosuch": 1}'}, qr/^22023$/, 'a stage that is not there' ],
		[ q{'mood', '{"store": 0}'}, qr/^22023$/, 'no worker' ],
		[ q{'mood', '{"store": 1.5}'}, qr/^22023$/, 'half a worker' ],
		[ q{'mood', '{}'}, qr/^22023$/, 'no stages' ],
		[ q{'mood', '[]'}, qr/^22023$/, 'a list' ],
		[ q{'mood', NULL, 0}, qr/^22023$/, 'no queue' ],
		[ q{NULL}, qr/^22004$/, 'null' ])
	{
		my ($arguments, $state, $name) = @$case;
		(undef, $error) = $one->try("SELECT epro_etl.start_stream($arguments)");
		like(sqlstate($error), $state, "start refused: $name");
	}
	(undef, $error) = $one->try(q{BEGIN READ ONLY; SELECT epro_etl.start_stream('mood'); ROLLBACK});
	is(sqlstate($error), '25006', 'start refused: read only');
	$one->try('ROLLBACK');
	is(stream_processes($look), 0, 'start refused: no process');
	is(stream_shows($look, 'state'), '', 'start refused: no stream');
	return;
}

sub stops
{
	is($one->query(q{SELECT epro_etl.stop_stream('mood')}), 'f', 'stop: there is none');
	is(sqlstate(($one->try(q{SELECT epro_etl.stop_stream('nosuch')}))[1]), '42704', 'stop: no such pipeline');

	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		my $drain = "drain, $name";
		my $at_once = "at once, $name";
		my $timeout = "timeout, $name";

		# what is on its way arrives, what comes later stays
		restage($look);
		close_gate($look, 30);
		start_stream($one, $stages);
		stage($look, 1, 600, 7);
		ok(await_gate($look), "$drain: a chunk waits");
		ok(until_true($look, q{SELECT in_flight + stored FROM epro_etl.stat_stream}, 600), "$drain: all are on their way");
		$one->send(q{SELECT epro_etl.stop_stream('mood')});
		# the wish is not committed: the stream is there for others
		ok(await_stream($look, q{state = 'draining'}), "$drain: it drains");
		stage($two, 601, 700, 7);
		ok($one->busy, "$drain: the caller waits");
		open_gates($look);
		is(($one->wait)[0], 't', "$drain: done");
		is(stream_processes($look), 0, "$drain: no process is left");
		is($look->query('SELECT count(*), min(response_id) FROM staging'), '100|601', "$drain: what came later is in staging");
		is(status_of($look), 'succeeded', "$drain: the ledger");
		oracle_ok($look, $drain);

		# nothing is waited for
		close_gate($look, 650);
		start_stream($one, $stages);
		ok(await_gate($look), "$at_once: a chunk waits");
		my $writer = writer($node, 701, 1000, 7);
		stop_stream_ok($one, $at_once, 'drain => false');
		$writer->wait;
		open_gates($look);
		is(status_of($look), 'stopped', "$at_once: the ledger");
		is($look->query('SELECT count(*) > 0 FROM staging WHERE response_id = 650'), 't', "$at_once: the chunk is back in staging");
		oracle_ok($look, $at_once);

		# a drain that takes too long becomes a stop at once
		close_gate($look, 650);
		start_stream($one, $stages);
		ok(await_gate($look), "$timeout: a chunk waits");
		stop_stream_ok($one, $timeout, q{timeout => '300ms'});
		open_gates($look);
		is(status_of($look), 'stopped', "$timeout: the ledger");
		oracle_ok($look, $timeout);

		# the next does the rest
		start_stream($one, $stages);
		ok(await_arrived($look, 1000), "$timeout: the next stream does the rest");
		stop_stream_ok($one, "$timeout, the rest");
		answers_ok($look, $name);
		oracle_ok($look, "$timeout, the rest");
		$writer->close;
	}
	return;
}

# Who does not wait for the end takes the wish back.
sub stop_is_taken_back
{
	foreach my $how ('cancel', 'statement_timeout', 'terminate')
	{
		my $name = "stop, $how";
		my $caller = EproTest::Psql->new($node);

		restage($look);
		close_gate($look, 30);
		start_stream($one, $to_all);
		stage($look, 1, 600, 7);
		ok(await_gate($look), "$name: a chunk waits");
		$caller->query(q{SET statement_timeout = '400ms'}) if $how eq 'statement_timeout';
		$caller->send(q{SELECT epro_etl.stop_stream('mood')});
		ok(await_stream($look, q{state = 'draining'}), "$name: it drains");
		$look->query('SELECT pg_' . $how . '_backend(' . $caller->backend . ')') if $how ne 'statement_timeout';
		my ($out, $error) = $caller->wait;
		is(sqlstate($error), $how eq 'terminate' ? '57P01' : '57014', "$name: the caller's error");
		open_gates($look);
		ok(await_arrived($look, 600), "$name: what was on its way arrives");
		stage($look, 601, 700, 7);
		ok(await_arrived($look, 700), "$name: the stream goes on");
		ok(await_stream($look, q{state = 'running'}), "$name: it is running");
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);
		$caller->close;
	}

	# a worker waits for the caller, who would wait for it
	restage($look);
	start_stream($one, $to_store);
	$two->query('BEGIN; LOCK TABLE mood_sink IN ACCESS EXCLUSIVE MODE');
	stage($look, 1, 100);
	ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'mood_sink'::regclass AND NOT granted}), q{stop, own lock: a worker waits});
	is(sqlstate(($two->try(q{SELECT epro_etl.stop_stream('mood')}))[1]), '40P01', 'stop, own lock: refused');
	$two->query('ROLLBACK');
	ok(await_arrived($look, 100), 'stop, own lock: it goes on');

	# stopped, and not so after all
	$two->query(q{BEGIN; SELECT epro_etl.stop_stream('mood')});
	is(stream_processes($look), 0, 'stop rolled back: it has ended');
	$two->query('ROLLBACK');
	my $state = stream_shows($look, 'state');
	ok($state eq 'not running' || $state eq '', "stop rolled back: what is to be seen is true: $state");
	start_stream($one, undef);
	stage($look, 101, 200);
	ok(await_arrived($look, 200), 'stop rolled back: it can be started');
	stop_stream_ok($one, 'stop rolled back');
	oracle_ok($look, 'stop rolled back');
	return;
}

# Two sessions, or one, that want different things at a time.
sub starts_and_stops_meet
{
	# in one transaction: the leader waits for us, who would wait for it
	restage($look, 1, 100);
	$one->query(q{SET statement_timeout = '5s'});
	my ($out, $error) = $one->try(q{BEGIN; SELECT epro_etl.start_stream('mood'); SELECT epro_etl.stop_stream('mood'); COMMIT});
	isnt(sqlstate($error), '57014', 'start and stop in one transaction: nobody waits for himself');
	$one->try('ROLLBACK');
	$one->query('RESET statement_timeout');
	ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), 'start and stop in one transaction: no process is left');
	is(stream_shows($look, 'state'), '', 'start and stop in one transaction: no stream');

	# stop and start in one transaction
	start_stream($one, undef);
	$one->query(qq{BEGIN; SELECT epro_etl.stop_stream('mood'); SELECT epro_etl.start_stream('mood', '$to_store'); COMMIT});
	ok(await_stream($look, q{state = 'running' AND workers = 1}), 'stop and start in one transaction: it runs');
	ok(await_arrived($look, 100), 'stop and start in one transaction: it works');

	# a start that comes while another session stops it
	close_gate($look, 120);
	stage($look, 101, 200);
	ok(await_gate($look), 'start while it stops: a chunk waits');
	$one->send(q{SELECT epro_etl.stop_stream('mood')});
	ok(await_stream($look, q{state = 'draining'}), 'start while it stops: it drains');
	$two->send(q{SELECT epro_etl.start_stream('mood')});
	ok(until_true($look, 'SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = \'Lock\' AND pid = ' . $two->backend), 'start while it stops: the start waits');
	open_gates($look);
	$one->wait;
	(undef, $error) = $two->wait;
	unlike($error, qr/ERROR/, 'start while it stops: no error');
	ok(await_stream($look, q{state = 'running'}), 'start while it stops: who came last is right');
	stage($look, 201, 300);
	ok(await_arrived($look, 300), 'start while it stops: it works');
	$one->try(q{SELECT epro_etl.stop_stream('mood')});
	oracle_ok($look, 'start while it stops');

	# a start that comes while another session's start is rolled back
	restage($look, 1, 100);
	$one->query(q{BEGIN; SELECT epro_etl.start_stream('mood')});
	$two->send(q{SELECT epro_etl.start_stream('mood')});
	ok(until_true($look, 'SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = \'Lock\' AND pid = ' . $two->backend), 'start after a start: the second waits');
	$one->query('ROLLBACK');
	$two->wait;
	ok(await_stream($look, q{state = 'running'}), 'start after a start that is rolled back: it runs');
	ok(await_arrived($look, 100), 'start after a start that is rolled back: it works');
	$one->try(q{SELECT epro_etl.stop_stream('mood')});
	oracle_ok($look, 'start after a start that is rolled back');

	# the same, and the second takes its time
	foreach my $end ('COMMIT', 'ROLLBACK')
	{
		my $name = "start after a start that is rolled back, then $end";

		restage($look, 1, 100);
		$one->query(q{BEGIN; SELECT epro_etl.start_stream('mood')});
		$two->query('BEGIN');
		$two->send(q{SELECT epro_etl.start_stream('mood')});
		ok(until_true($look, 'SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = \'Lock\' AND pid = ' . $two->backend), "$name: it waits");
		$one->query('ROLLBACK');
		$two->wait;
		# time for the first one's leader to find that there is nothing to do
		sleep(0.3);
		is($look->query('SELECT count(*) FROM staging'), 100, "$name: not yet");
		$two->query($end);
		if ($end eq 'COMMIT')
		{
			ok(await_arrived($look, 100), "$name: it works");
			stop_stream_ok($one, $name);
		}
		else
		{
			ok(until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type ~ '^epro_etl st'}, 0), "$name: no process is left");
			is($look->query('SELECT count(*) FROM epro_etl.stream_status()'), 0, "$name: no entry is left");
		}
		oracle_ok($look, $name);
	}

	# a start that is terminated before it has started anything
	restage($look, 1, 100);
	start_stream($one, undef);
	my $third = EproTest::Psql->new($node);
	$one->query(q{BEGIN; SELECT epro_etl.stop_stream('mood')});
	$third->send(q{SELECT epro_etl.start_stream('mood')});
	ok(until_true($look, 'SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = \'Lock\' AND pid = ' . $third->backend), 'start terminated: it waits');
	$look->query('SELECT pg_terminate_backend(' . $third->backend . ')');
	$third->wait;
	$one->query('COMMIT');
	is(stream_processes($look), 0, 'start terminated: no process');
	(undef, $error) = $one->try(q{SELECT epro_etl.start_stream('mood')});
	unlike($error, qr/already/, 'start terminated: there is none yet');
	ok(await_arrived($look, 100), 'start terminated: the next start works');
	$one->query(q{SET statement_timeout = '5s'});
	unlike(($one->try(q{SELECT epro_etl.stop_stream('mood')}))[1], qr/ERROR/, 'start terminated: and can be stopped');
	$one->query('RESET statement_timeout');
	$third->close;
	oracle_ok($look, 'start terminated');

	# two stops
	restage($look);
	close_gate($look, 30);
	start_stream($one, $to_store);
	stage($look, 1, 100);
	ok(await_gate($look), 'two stops: a chunk waits');
	$one->send(q{SELECT epro_etl.stop_stream('mood')});
	ok(await_stream($look, q{state = 'draining'}), 'two stops: it drains');
	$two->send(q{SELECT epro_etl.stop_stream('mood', false)});
	sleep(0.3);
	open_gates($look);
	is(($one->wait)[0], 't', 'two stops: the first');
	unlike(($two->wait)[1], qr/ERROR/, 'two stops: the second');
	is(stream_processes($look), 0, 'two stops: no process is left');
	oracle_ok($look, 'two stops');
	return;
}

# Started and stopped again and again, while rows come and somebody looks on.
sub restless
{
	restage($look);
	my $writer = writer($node, 1, 6000, 7);
	my $watcher = EproTest::Psql->new($node);
	my $run = 0;

	$watcher->send(q{DO $$ BEGIN FOR i IN 1..1000000 LOOP
		PERFORM * FROM epro_etl.stat_stream; PERFORM * FROM epro_etl.stat_channel; PERFORM * FROM epro_etl.stat_progress; COMMIT;
		EXIT WHEN EXISTS (SELECT FROM gate WHERE id = -1); END LOOP; END $$});
	for (my $i = 0; $i < 20; $i++)
	{
		my $stages = $cuts[ $i % @cuts ]->[1];
		my $how = ('true', 'false', q{true, '20ms'}) [ $i % 3 ];

		$one->query('SELECT epro_etl.start_stream(\'mood\', ' . (defined $stages ? "'$stages'" : 'NULL') . ", 50)");
		sleep(0.02 * ($i % 5));
		$run += $one->query("SELECT epro_etl.stop_stream('mood', $how)") eq 't';
	}
	is($run, 20, 'restless: there was one each time');
	is(stream_processes($look), 0, 'restless: no process is left');
	$look->query('INSERT INTO gate VALUES (-1, false)');
	is(($watcher->wait)[1], '', 'restless: who looks on sees no error');
	$writer->wait;
	is($look->query(q{SELECT count(*) FROM epro_etl.run_history WHERE status NOT IN ('succeeded', 'stopped')}), 0, 'restless: no run has failed');
	oracle_ok($look, 'restless');
	start_stream($one, $to_all);
	ok(await_arrived($look, 6000), 'restless: the last does the rest');
	stop_stream_ok($one, 'restless');
	answers_ok($look, 'restless');
	oracle_ok($look, 'restless, the rest');
	$_->close foreach ($writer, $watcher);
	return;
}

# With an hour to the next look, a commit is what brings a row in.
sub wakes
{
	$node->append_conf('postgresql.conf', "epro_etl.naptime = '1h'\n");
	$node->reload;
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "wake, $name";

		restage($look);
		start_stream($one, $stages);
		stage($look, 1, 10);
		ok(await_arrived($look, 10), "$name: INSERT");
		$two->query(q{COPY put_in (response_id, payload) FROM PROGRAM 'printf "11\t{\"note\": \"by COPY\"}\n"';
			COPY staging FROM PROGRAM 'printf "11\tST01\tMOOD\tS-1\tV1\t2026-01-01\t{\"mood01\": 1, \"note\": \"by COPY\"}\n"'});
		ok(await_arrived($look, 11), "$name: COPY");

		# a row that nobody tells of, and a commit that tells of none
		$two->query(q{SET session_replication_role = replica; SELECT stage(12, 12); SET session_replication_role = origin});
		$two->query('BEGIN; SELECT stage(13, 20); ROLLBACK');
		$two->query('BEGIN; SAVEPOINT s; SELECT stage(13, 20); ROLLBACK');
		sleep(0.3);
		is($look->query('SELECT string_agg(response_id::text, \' \') FROM staging'), '12', "$name: what is rolled back does not wake");
		$two->query(q{UPDATE staging SET visit = 'V9' WHERE response_id = 12});
		ok(await_arrived($look, 12), "$name: UPDATE");
		$two->query(q{BEGIN; SAVEPOINT s; SELECT stage(13, 14); ROLLBACK TO s; SELECT stage(15, 16); COMMIT});
		ok(await_arrived($look, 14), "$name: after a savepoint");
		$two->query(q{DO $$ BEGIN FOR i IN 17..30 LOOP PERFORM stage(i, i); COMMIT; END LOOP; END $$});
		ok(await_arrived($look, 28), "$name: commits in a DO");

		# while a pass goes on, so that the next must follow
		my $writer = writer($node, 101, 1000);
		my $more = writer($node, 1001, 2000);
		$_->wait foreach ($writer, $more);
		ok(await_arrived($look, 1928), "$name: many commits");
		stop_stream_ok($one, $name);
		oracle_ok($look, $name);
		$_->close foreach ($writer, $more);
	}
	$node->append_conf('postgresql.conf', "epro_etl.naptime = '100ms'\n");
	$node->reload;

	# without the trigger it looks by itself
	restage($look);
	start_stream($one, undef);
	$look->query('DROP TRIGGER epro_etl_wake ON staging');
	stage($look, 1, 10);
	ok(await_arrived($look, 10), 'no trigger: it looks every naptime');
	$look->query(q{BEGIN; SELECT stage(11, 20); PREPARE TRANSACTION 'p'});
	$look->query(q{COMMIT PREPARED 'p'});
	ok(await_arrived($look, 20), 'prepared: it arrives');
	stop_stream_ok($one, 'no trigger');
	oracle_ok($look, 'no trigger');
	$look->query(q{SELECT epro_etl.watch_source('mood'), epro_etl.watch_source('mood')});
	is($look->query(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'staging'::regclass AND tgname = 'epro_etl_wake'}), 1, 'watch_source: one trigger');
	return;
}

# Delete triggers and row security: rows are claimed by SQL.
sub slow_source
{
	$look->query(q{CREATE TABLE witness (response_id bigint);
		CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO witness VALUES (OLD.response_id); RETURN OLD; END';
		CREATE TRIGGER witness AFTER DELETE ON staging FOR EACH ROW EXECUTE FUNCTION witness()});
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "delete trigger, $name";

		restage($look);
		$look->query('TRUNCATE witness');
		start_stream($one, $stages);
		my $writer = writer($node, 1, 1000, 7);
		ok(await_arrived($look, 1000), "$name: all has arrived");
		$writer->wait;
		$two->query('BEGIN; SELECT stage(1001, 1010); COMMIT; BEGIN; SELECT FROM staging WHERE response_id = 1005 FOR UPDATE');
		# all of them, if the stream was there before the lock
		ok(until_true($look, 'SELECT (SELECT count(*) FROM mood_sink) + (SELECT count(*) FROM epro_etl.quarantine) >= 1009'), "$name: the others have arrived");
		$two->query('COMMIT');
		ok(await_arrived($look, 1010), "$name: all");
		is($look->query('SELECT count(*), count(DISTINCT response_id) FROM witness'), '1010|1010', "$name: the trigger saw each");
		stop_stream_ok($one, $name);
		answers_ok($look, $name);
		oracle_ok($look, $name);
		$writer->close;
	}

	# a trigger that forbids it keeps the row
	$look->query(q{CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN OLD.response_id = 5 THEN NULL ELSE OLD END; END';
		CREATE TRIGGER keep BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION keep()});
	restage($look, 1, 100);
	start_stream($one, $to_store);
	ok(await_arrived($look, 99), 'delete refused: the others have arrived');
	is(stream_shows($look, 'state, failures'), 'running|0', 'delete refused: the stream is well');
	$look->query('DROP TRIGGER keep ON staging');
	ok(await_arrived($look, 100), 'delete refused: it arrives when it may');
	stop_stream_ok($one, 'delete refused');
	$look->query('DROP TRIGGER witness ON staging');
	oracle_ok($look, 'delete refused');
	return;
}

# Other streams and batches of the same source, and what comes back from quarantine.
sub side_by_side
{
	$look->query(q{SELECT epro_etl.create_pipeline('second', 'staging', '{"id": "response_id"}'); SELECT epro_etl.add_sink('second', 'MOOD', 'mood_sink')});
	restage($look);
	start_stream($one, $to_store);
	$one->query(q{SELECT epro_etl.start_stream('second', '{"validate": 1, "store": 1}')});
	my @writers = (writer($node, 1, 1500, 7), writer($node, 1501, 3000, 7));
	$two->query(q{SELECT epro_etl.run('mood', workers => 2)}) foreach 1 .. 10;
	$_->wait foreach @writers;
	ok(await_arrived($look, 3000), 'side by side: all has arrived');
	ok(await_stream($look, 'in_flight = 0 AND held = 0'), 'side by side: nothing is on its way any more');
	is($look->query('SELECT count(*), sum(failures) FROM epro_etl.stat_stream'), '2|0', 'side by side: two streams');
	is($look->query('SELECT count(DISTINCT pipeline) FROM epro_etl.run_history WHERE stream AND claimed > 0'), 2, 'side by side: both had a share');

	# corrected, and requeued
	is($one->query(q{SELECT epro_etl.stop_stream('second'); SELECT epro_etl.drop_pipeline('second')}), "t\n", 'side by side: one is stopped');
	my $bad = $look->query(q{SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 'mood'});
	$look->query(q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
		"mood01": {"type": "integer", "minimum": 0, "maximum": 9}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
	ok(await_stream($look, q{generations = 2 AND state = 'running'}), 'requeue: the new version is taken over');
	is($look->query(q{SELECT epro_etl.requeue('mood')}), $bad, 'requeue: done');
	ok(until_true($look, q{SELECT count(*) FROM epro_etl.quarantine WHERE pipeline = 'mood'}, 0), 'requeue: none is left');
	ok(until_true($look, q{SELECT count(*) FROM staging}, 0), 'requeue: all arrive');
	answers_ok($look, 'requeue');

	# who cancels the run cancels a generation of the stream, which goes on
	my $run = stream_shows($look, 'run_id');
	$look->query("SELECT epro_etl.cancel_run($run)");
	stage($look, 3001, 3100);
	ok(until_true($look, 'SELECT count(*) FROM mood_sink WHERE source_id > 3000', 100), 'run canceled: the stream goes on');
	stop_stream_ok($one, 'side by side');
	$_->close foreach @writers;
	# what was requeued is in quarantine no more, but in the ledger and findings of its run
	is($look->query(q{SELECT string_agg(o, ' ') FROM oracle(ARRAY['staging'], ARRAY['mood_sink']) o WHERE o !~ 'rejected \\d+ by its ledger|finding that rejects'}), '', 'oracle: side by side');
	$look->query(q{SELECT epro_etl.register_form('MOOD', '{"type": "object", "required": ["mood01"], "properties": {
		"mood01": {"type": "integer", "minimum": 0, "maximum": 3}, "mood02": {"type": "integer"}, "note": {"type": "string"}}}')});
	return;
}

# A stream acts as who started it, with no more rights.
sub roles
{
	$look->query(q{CREATE ROLE loader LOGIN; CREATE ROLE member LOGIN IN ROLE loader; CREATE ROLE other LOGIN;
		GRANT USAGE ON SCHEMA epro_etl TO loader, other; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA epro_etl TO loader, other;
		GRANT SELECT ON epro_etl.stat_stream, epro_etl.stat_progress TO loader, other;
		GRANT SELECT, DELETE, UPDATE ON staging TO loader; GRANT SELECT, INSERT ON mood_sink TO loader});
	my $loader = EproTest::Psql->new($node, user => 'loader');
	my $member = EproTest::Psql->new($node, user => 'member');
	my $other = EproTest::Psql->new($node, user => 'other');

	restage($look, 1, 100, 7);
	$look->query('DROP TRIGGER IF EXISTS epro_etl_wake ON staging');
	is(sqlstate(($other->try(q{SELECT epro_etl.start_stream('mood')}))[1]), '42501', 'roles: no right, no stream');
	is(stream_processes($look), 0, 'roles: no process');
	my (undef, $error) = $loader->try(qq{SELECT epro_etl.start_stream('mood', '$to_all')});
	like($error, qr/NOTICE: .* will not wake/, 'roles: a trigger needs the right to it');
	ok(await_arrived($look, 100), 'roles: it works without');
	is($look->query(q{SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity WHERE backend_type ~ '^epro_etl st'}), 'loader', 'roles: its processes are sessions of the role');
	is(stream_shows($look, 'login, role'), 'loader|loader', 'roles: stat_stream');
	is(status_of($look, 'session_user_name, current_user_name'), 'loader|loader', 'roles: the ledger');
	is(sqlstate(($other->try(q{SELECT epro_etl.stop_stream('mood')}))[1]), '42501', 'roles: another may not stop it');
	is(sqlstate(($other->try(q{SELECT epro_etl.stop_stream('mood', false)}))[1]), '42501', 'roles: nor at once');
	(undef, $error) = $other->try(qq{SELECT epro_etl.start_stream('mood', '$to_store')});
	is(sqlstate($error), '42501', 'roles: nor change it');
	ok(await_stream($look, q{state = 'running' AND workers = 8}), 'roles: it goes on');
	$look->query('SELECT epro_etl.watch_source(\'mood\'); GRANT SELECT, DELETE, UPDATE ON staging TO other; GRANT SELECT, INSERT ON mood_sink TO other');
	(undef, $error) = $other->try(qq{SELECT epro_etl.start_stream('mood', '$to_store')});
	is(sqlstate($error), '42501', 'roles: nor with rights of its own');
	ok(await_stream($look, q{state = 'running' AND workers = 8}), 'roles: it still goes on');

	# a right that is taken away, and given back
	$look->query('REVOKE INSERT ON mood_sink FROM loader');
	stage($look, 101, 200, 7);
	ok(await_stream($look, q{state = 'waiting' AND sqlstate = '42501' AND failures > 0 AND next_try > since}), 'roles: without a right, it waits');
	$look->query('GRANT INSERT ON mood_sink TO loader');
	ok(await_arrived($look, 200), 'roles: with it, it goes on by itself');
	is($member->query(q{SELECT epro_etl.stop_stream('mood')}), 't', 'roles: a member may stop it');
	is(stream_processes($look), 0, 'roles: it has ended');
	oracle_ok($look, 'roles');

	# logged in as one, acting as another
	restage($look, 1, 100, 7);
	$two->query('SET ROLE loader');
	start_stream($two, $to_all);
	$two->query('RESET ROLE');
	ok(await_arrived($look, 100), 'SET ROLE: it works');
	is(stream_shows($look, 'login, role'), 'postgres|loader', 'SET ROLE: stat_stream');
	is(status_of($look, 'session_user_name, current_user_name'), 'postgres|loader', 'SET ROLE: the ledger');
	$look->query('REVOKE INSERT ON mood_sink FROM loader');
	stage($look, 101, 110);
	ok(await_stream($look, q{state = 'waiting' AND sqlstate = '42501'}), 'SET ROLE: the rights are those of the role');
	$look->query('GRANT INSERT ON mood_sink TO loader');
	ok(await_arrived($look, 110), 'SET ROLE: it goes on');
	stop_stream_ok($one, 'SET ROLE');
	oracle_ok($look, 'SET ROLE');

	# the owner of the table needs no other right for the trigger
	$look->query('DROP TRIGGER epro_etl_wake ON staging; ALTER TABLE staging OWNER TO loader');
	(undef, $error) = $loader->try(q{SELECT epro_etl.watch_source('mood')});
	is($error, '', 'roles: the owner of the source has it watched');
	# what was granted to the owner has become the owner's
	$look->query('ALTER TABLE staging OWNER TO postgres; GRANT SELECT, DELETE, UPDATE ON staging TO loader');

	# row security
	$look->query(q{ALTER TABLE staging ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON staging TO loader USING (study = 'ST01')});
	restage($look, 1, 100, 7);
	$look->query(q{UPDATE staging SET study = 'ST02' WHERE response_id % 10 = 0});
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "row security, $name";
		my $n = 90;

		start_stream($loader, $stages);
		ok(await_arrived($look, $n), "$name: what the role sees has arrived");
		is($loader->query(q{SELECT epro_etl.stop_stream('mood')}), 't', "$name: stopped");
		is($look->query('SELECT count(*) FROM staging'), 10, "$name: the rest is in staging");
		oracle_ok($look, $name);
		restage($look, 1, 100, 7);
		$look->query(q{UPDATE staging SET study = 'ST02' WHERE response_id % 10 = 0});
	}
	$look->query('ALTER TABLE staging DISABLE ROW LEVEL SECURITY; DROP POLICY mine ON staging');
	$_->close foreach ($loader, $member, $other);
	return;
}

# What a patient has answered is in no log and no message.
sub planted
{
	$node->append_conf('postgresql.conf', "log_min_messages = debug1\n");
	$node->reload;
	$look->query(q{CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.source_id = 33 THEN RAISE EXCEPTION 'not %', NEW.note USING DETAIL = NEW::text, HINT = NEW.visit; END IF;
		IF NEW.source_id = 77 AND EXISTS (SELECT FROM public.gate WHERE id = -1) THEN
			RAISE EXCEPTION 'no room for %', NEW.note USING ERRCODE = '53100', DETAIL = NEW::text, HINT = NEW.visit; END IF;
		RETURN NEW; END $$;
		CREATE TRIGGER tell BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION tell()});
	foreach my $cut (@cuts)
	{
		my ($name, $stages) = @$cut;
		$name = "planted, $name";

		restage($look);
		$look->query('INSERT INTO gate VALUES (-1, false)');
		$look->query("SELECT stage(1, 100); UPDATE staging SET study = '$marker', subject = '$marker' || subject, visit = '$marker',"
			  . " payload = payload || jsonb_build_object('note', '$marker', '$marker', '$marker', 'mood02', CASE WHEN response_id % 50 = 0 THEN to_jsonb('$marker'::text) ELSE '1' END),"
			  . " form = CASE WHEN response_id % 70 = 0 THEN '$marker' ELSE form END");
		my (undef, $error) = $one->try('SELECT epro_etl.start_stream(\'mood\', ' . (defined $stages ? "'$stages'" : 'NULL') . ')');
		unlike($error, qr/$marker/i, "$name: not in what the client is told");
		ok(await_stream($look, q{failures >= 2 AND sqlstate = '53100'}), "$name: an error that is not the data's");
		unlike($look->query('SELECT * FROM epro_etl.stat_stream'), qr/$marker/i, "$name: not in stat_stream");
		$look->query('DELETE FROM gate');
		ok(await_arrived($look, 100), "$name: all has arrived");
		unlike($look->query('SELECT * FROM epro_etl.stat_stream; SELECT * FROM epro_etl.stat_channel; SELECT * FROM epro_etl.stat_progress; SELECT query FROM pg_stat_activity WHERE backend_type ~ \'^epro_etl\''),
			qr/$marker/i, "$name: not in what is shown");
		stop_stream_ok($one, $name);
		foreach my $place ('epro_etl.finding', 'epro_etl.run_ledger', 'epro_etl.run_worker', 'epro_etl.run_history')
		{
			is($look->query("SELECT count(*) FROM $place t WHERE t::text ~* '$marker'"), 0, "$name: not in $place");
		}
		oracle_ok($look, $name);
	}
	$look->query('DROP TRIGGER tell ON mood_sink');
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/$marker/i, 'planted: not in the server log');
	return;
}
