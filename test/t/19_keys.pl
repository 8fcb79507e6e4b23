# Pseudonyms and the versions of their key: the same for a subject in whatever
# topology; a key that is another one is refused; after a rotation all are
# others, and the job that brings old rows along can be ended anywhere.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

my $node = create_node('keys', conf => "epro_etl.naptime = '100ms'\n");
create_fixture($node);
my $look = observer($node);
my $one = EproTest::Psql->new($node);
my $same = q{SELECT md5(string_agg(source_id || subject_key, ',' ORDER BY source_id)) FROM mood_sink};
my $by_subject = q{SELECT count(*) || '|' || count(DISTINCT subject_key) FROM (SELECT DISTINCT source_id % 97, subject_key FROM mood_sink) s};
my $versions = q{SELECT string_agg(key_version || ':' || n, ' ' ORDER BY key_version) FROM (SELECT key_version, count(*) AS n FROM mood_sink GROUP BY 1) v};

parts('main', qw(topologies another_key rotation ended_anywhere told as_its_caller));

$_->close foreach ($look, $one);
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal 11/, 'no process crashed');
done_testing();

sub topologies
{
	my %made;

	foreach my $workers (0, 1, 2)
	{
		restage($look, 1, 300);
		$one->query("SELECT epro_etl.run('mood', workers => $workers)");
		$made{"$workers workers"} = $look->query($same);
	}
	foreach my $stages ('{"validate": 1, "store": 1}', '{"decode": 1, "deidentify": 2, "normalise": 1, "validate": 2, "store": 2}')
	{
		restage($look, 1, 300);
		ok(start_stream($one, $stages), 'a stream runs');
		ok(await_arrived($look, 300), 'a stream has it all');
		stop_stream_ok($one, 'a stream');
		$made{$stages} = $look->query($same);
	}
	is($made{$_}, $made{'0 workers'}, "the same pseudonyms: $_") foreach sort keys %made;
	is($look->query($by_subject), '97|97', 'a pseudonym a subject');
	is($look->query($versions), '1:300', 'of the first version');
	is(status_of($look, 'key_version'), '1', 'so says the ledger of the stream');
	is($look->query(q{SELECT string_agg(version || state, ' ') FROM epro_etl.key_version}), '1current', 'so says the keyring');
	return;
}

# Of a run by whatever number of workers, and of a stream; they go on with the right one.
sub another_key
{
	my $other = key_file($node, 'other.key', 'o' x 32);

	restage($look, 1, 300);
	$one->query("SET epro_etl.key_file = '$other'");
	foreach my $workers (0, 2)
	{
		my ($out, $error) = $one->try("SELECT epro_etl.run('mood', workers => $workers)");
		is(sqlstate($error), 'EP005', "another key, $workers workers: refused");
		like($error, qr/HINT:/, "another key, $workers workers: with a hint");
	}
	is($one->query('SELECT count(*) FROM staging'), 300, 'another key: nothing moved');
	$one->query('RESET epro_etl.key_file');
	$node->append_conf('postgresql.conf', "epro_etl.key_file = '$other'");
	$node->reload;
	until_true($look, "SELECT current_setting('epro_etl.key_file') = '$other'");
	$one->query(q{SELECT epro_etl.start_stream('mood')});
	ok(await_stream($look, q{failures > 0 AND sqlstate = 'EP005'}), 'another key: a stream fails');
	is($look->query('SELECT count(*) FROM staging'), 300, 'another key: and moves nothing');
	$node->append_conf('postgresql.conf', "epro_etl.key_file = '" . $node->basedir . "/pseudonym.key'");
	$node->reload;
	ok(await_arrived($look, 300), 'the right one again: the stream goes on');
	stop_stream_ok($one, 'the right one again');
	return;
}

# Runs that are pinned go on with their version, streams take the next by themselves.
sub rotation
{
	restage($look, 1, 600);
	close_gate($look, 225);
	$one->send(q{SELECT epro_etl.run('mood', workers => 1)});
	ok(await_gate($look), 'a run is in the middle');
	my $version = $look->query(q{SELECT epro_etl.rotate_key('in the middle of a run')});
	open_gates($look);
	$one->wait;
	is($look->query($versions), ($version - 1) . ':600', 'a run stays with the version that it began with');
	is(status_of($look, 'key_version'), $version - 1, 'and its ledger says so');
	stage($look, 601, 900);
	$one->query(q{SELECT epro_etl.run('mood', workers => 2)});
	is($look->query($versions), ($version - 1) . ":600 $version:300", 'the next run has the next');
	is($look->query($by_subject), '194|194', 'all pseudonyms are others');

	# a run is pinned from when it is opened, before its workers have read the key
	stage($look, 1201, 1300);
	$look->query('BEGIN; LOCK TABLE epro_etl.run_worker IN ACCESS EXCLUSIVE MODE');
	$one->send(q{SELECT epro_etl.run('mood', workers => 2)});
	ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'epro_etl.run_worker'::regclass AND NOT granted}), 'a run is being opened');
	my $two = EproTest::Psql->new($node);
	$two->query('SELECT epro_etl.rotate_key()');
	$two->close;
	$look->query('COMMIT');
	$one->wait;
	is($look->query("SELECT string_agg(DISTINCT key_version::text, ' ') FROM mood_sink WHERE source_id > 1200"), $version, 'all its workers have its version');
	$look->query('DELETE FROM mood_sink WHERE source_id > 1200; DELETE FROM put_in WHERE response_id > 1200;'
		. " DELETE FROM epro_etl.key_version WHERE version > $version; DELETE FROM epro_etl.run_worker WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger);"
		. ' DELETE FROM epro_etl.run_ledger WHERE run_id = (SELECT max(run_id) FROM epro_etl.run_ledger)');

	ok(start_stream($one, '{"validate": 1, "store": 1}'), 'a stream runs');
	$version = $look->query(q{SELECT epro_etl.rotate_key('while a stream runs')});
	ok(await_stream($look, q{generations = 2 AND state = 'running'}), 'it begins another generation');
	stage($look, 901, 1200);
	ok(await_arrived($look, 1200), 'it goes on');
	stop_stream_ok($one, 'a stream');
	is($look->query($versions), ($version - 2) . ':600 ' . ($version - 1) . ":300 $version:300", 'with the next version');
	is($look->query($by_subject), '291|291', 'all pseudonyms are others again');

	my ($out, $error) = $one->try(q{CALL epro_etl.repseudonymise('mood_sink')});
	like($error, qr/brought to key version $version: 900\n/, 'the old ones are brought along');
	is($look->query($versions), "$version:1200", 'all are of the newest');
	is($look->query(q{SELECT sum((new_value ->> 'rows')::int), string_agg(DISTINCT concat_ws('|', object, new_value ->> 'target', new_value ->> 'key_version', session_user_name), ' ')}
			. q{ FROM epro_etl.audit_trail WHERE action = 'repseudonymise'}), "900|sink|public.mood_sink|$version|postgres", 'and the audit trail says how many');
	is($look->query($by_subject), '97|97', 'and equal to what a new run makes');
	oracle_ok($look, 'rotation', sinks => ['mood_sink']);
	return;
}

# Canceled, terminated, killed: a row is done, or it is not.
sub ended_anywhere
{
	my $node_back = sub { await_back($node) };
	my %how = (
		'1 canceled' => sub { $look->query('SELECT pg_cancel_backend(' . $_[0]->backend . ')') },
		'2 terminated' => sub { $look->query('SELECT pg_terminate_backend(' . $_[0]->backend . ')') },
		'3 killed' => sub { kill 'KILL', $_[0]->backend });

	restage($look, 1, 12000);
	$one->query(q{SET epro_etl.batch_size = 2000; SELECT epro_etl.run('mood', workers => 1)});
	$look->query(q{DROP TABLE IF EXISTS before; CREATE TABLE before AS SELECT source_id, subject_key, key_version FROM mood_sink;
		CREATE TRIGGER at_gate_of_update BEFORE UPDATE ON mood_sink FOR EACH ROW EXECUTE FUNCTION at_gate()});
	my $version = $look->query('SELECT epro_etl.rotate_key()');
	my $gate = 3000;
	my $done = 0;
	foreach my $name (sort keys %how)
	{
		my $job = EproTest::Psql->new($node);

		# in rows that the ones before have not come to
		$gate += 2500;
		close_gate($look, $gate);
		$job->send(q{CALL epro_etl.repseudonymise('mood_sink')});
		ok(await_gate($look), "$name: it is in the middle");
		$how{$name}->($job);
		$job->wait;
		$job->close;
		if ($name eq '3 killed')
		{
			$node_back->();
			$_->close foreach ($look, $one);
			$look = observer($node);
			$one = EproTest::Psql->new($node);
		}
		open_gates($look);
		my $now = $look->query("SELECT count(*) FROM mood_sink WHERE key_version = $version");
		cmp_ok($now, '>', $done, "$name: some more are done: $now");
		cmp_ok($now, '<', 12000, "$name: and some are not");
		$done = $now;
		is($look->query(q{SELECT count(*) FROM mood_sink s FULL JOIN before b USING (source_id)
			WHERE (s.key_version = b.key_version) IS DISTINCT FROM (s.subject_key = b.subject_key)}), 0, "$name: key and version go together");
		is($look->query(q{SELECT count(*) FROM (SELECT DISTINCT source_id % 97, key_version, subject_key FROM mood_sink) s}), 194, "$name: a pseudonym a subject and version");
	}
	my ($out, $error) = $one->try(q{CALL epro_etl.repseudonymise('mood_sink')});
	my $rest = 12000 - $done;
	like($error, qr/brought to key version $version: $rest\n/, 'the rest is done by the next, nothing twice');
	stage($look, 12001, 12100);
	$one->query(q{SELECT epro_etl.run('mood', workers => 0)});
	is($look->query($versions), "$version:12100", 'all are of the newest');
	is($look->query($by_subject), '97|97', 'and equal to what a new run makes');
	oracle_ok($look, 'after all');
	$look->query('DROP TRIGGER at_gate_of_update ON mood_sink');
	return;
}

# What cannot be brought along is told, or refused.
sub told
{
	restage($look, 1, 300);
	$one->query(q{SELECT epro_etl.run('mood', workers => 0)});
	$look->query(q{UPDATE mood_sink SET key_version = NULL WHERE source_id <= 10;
		UPDATE mood_sink SET subject_key = repeat('a', 32) WHERE source_id BETWEEN 11 AND 30});
	my $version = $look->query('SELECT epro_etl.rotate_key()');
	my ($out, $error) = $one->try(q{CALL epro_etl.repseudonymise('mood_sink')});
	like($error, qr/brought to key version $version: 270\n/, 'a random code is no derived pseudonym');
	like($error, qr/left as they are: 30\n/, 'what is left is told');

	$version = $look->query('SELECT epro_etl.rotate_key()');
	$look->query(q{CREATE FUNCTION drop_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER dropper BEFORE UPDATE ON mood_sink FOR EACH ROW EXECUTE FUNCTION drop_change()});
	($out, $error) = $one->try(q{CALL epro_etl.repseudonymise('mood_sink')});
	is(sqlstate($error), 'EP006', 'a change that a trigger drops');
	$look->query(q{CREATE OR REPLACE FUNCTION drop_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.key_version := OLD.key_version; RETURN NEW; END'});
	($out, $error) = $one->try(q{CALL epro_etl.repseudonymise('mood_sink')});
	is(sqlstate($error), 'EP006', 'a version that a trigger keeps');
	is($look->query("SELECT count(*) FROM mood_sink WHERE key_version = $version"), 0, 'nothing of that stays');
	$look->query('DROP TRIGGER dropper ON mood_sink');

	# a sink in parts, and rows that go from one to another with their key
	$look->query(q{TRUNCATE mood_sink; ALTER TABLE mood_sink RENAME TO plain_sink;
		CREATE TABLE mood_sink (LIKE plain_sink) PARTITION BY LIST (key_version);
		CREATE TABLE mood_old PARTITION OF mood_sink DEFAULT;
		SELECT epro_etl.remove_sink('mood', 'MOOD', 'plain_sink'); SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_sink')});
	stage($look, 301, 600);
	$one->query(q{SELECT epro_etl.run('mood', workers => 1)});
	$version++;
	$look->query("CREATE TABLE mood_new PARTITION OF mood_sink FOR VALUES IN ($version); SELECT epro_etl.rotate_key()");
	($out, $error) = $one->try(q{CALL epro_etl.repseudonymise('mood_sink')});
	like($error, qr/brought to key version $version: 300\n/, 'a sink in parts');
	is($look->query('SELECT (SELECT count(*) FROM mood_new), (SELECT count(*) FROM mood_old)'), '300|0', 'they are in the other part');
	$look->query(q{SELECT epro_etl.remove_sink('mood', 'MOOD', 'mood_sink'); DROP TABLE mood_sink; ALTER TABLE plain_sink RENAME TO mood_sink;
		SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_sink')});
	return;
}

# Its privileges, its row security, and no search path.
sub as_its_caller
{
	restage($look, 1, 300);
	$one->query(q{SELECT epro_etl.run('mood', workers => 0)});
	$look->query(q{SELECT epro_etl.rotate_key();
		CREATE ROLE keeper LOGIN; GRANT USAGE ON SCHEMA epro_etl TO keeper; GRANT EXECUTE ON PROCEDURE epro_etl.repseudonymise TO keeper;
		CREATE SCHEMA evil AUTHORIZATION keeper; GRANT CREATE ON SCHEMA public TO keeper});
	my $keeper = EproTest::Psql->new($node, user => 'keeper');
	my ($out, $error) = $keeper->try(q{CALL epro_etl.repseudonymise('mood_sink')});
	is(sqlstate($error), '42501', 'not for others than the owner');
	($out, $error) = $keeper->try(q{SELECT epro_etl.rotate_key()});
	is(sqlstate($error), '42501', 'nor may everybody rotate');
	$look->query('ALTER TABLE mood_sink OWNER TO keeper; ALTER TABLE mood_sink ENABLE ROW LEVEL SECURITY; ALTER TABLE mood_sink FORCE ROW LEVEL SECURITY;'
		  . ' CREATE POLICY first_hundred ON mood_sink USING (source_id <= 100)');
	$keeper->query(q{CREATE FUNCTION evil.no(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
		CREATE FUNCTION evil.no(int, int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
		CREATE OPERATOR evil.~ (FUNCTION = evil.no, LEFTARG = text, RIGHTARG = text);
		CREATE OPERATOR evil.< (FUNCTION = evil.no, LEFTARG = int, RIGHTARG = int);
		CREATE OPERATOR evil.<> (FUNCTION = evil.no, LEFTARG = int, RIGHTARG = int);
		SET search_path = evil, pg_catalog});
	($out, $error) = $keeper->try(q{CALL epro_etl.repseudonymise('public.mood_sink')});
	like($error, qr/brought to key version \d+: 100\n/, 'what a policy lets it see, with no operator of its search path');
	like($error, qr/row security may hide more/, 'and the rest is told');
	is($keeper->query('SHOW search_path'), 'evil, pg_catalog', 'the search path is the caller\'s again');
	$look->query('ALTER TABLE mood_sink NO FORCE ROW LEVEL SECURITY');
	($out, $error) = $keeper->try(q{CALL epro_etl.repseudonymise('public.mood_sink')});
	like($error, qr/brought to key version \d+: 200\n/, 'without the policy, the rest');
	$keeper->close;
	return;
}
