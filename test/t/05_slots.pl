# What a run needs and may not get: worker slots, a server that can write, the
# key, privileges; and what it takes along from its caller.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

# No slot is for the logical replication launcher, so four are ours.
my $node = create_node('slots',
	init => { allows_streaming => 1 },
	conf => "max_worker_processes = 4\nmax_logical_replication_workers = 0\nmax_parallel_workers_per_gather = 0\n"
	  . "shared_buffers = 16MB\nautovacuum = off\n");
create_fixture($node);
my $look = observer($node);

slots();
numbers();
key();
settings();
roles();
privileges();
row_security();
standby();

$look->close;
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/,
	'no process crashed');
done_testing();

# Another run occupies slots: its workers stand at gates.
sub slots
{
	my $holder = EproTest::Psql->new($node);
	my $caller = EproTest::Psql->new($node);
	my $call = q{SELECT status, claimed, remaining, workers FROM epro_etl.run('mood', workers => 4)};

	restage($look, 1, 1200, 7);
	close_gate($look, $_) foreach (30, 570, 1000);
	my $run = $holder->query(q{SELECT epro_etl.start_run('mood', workers => 3)});
	ok(await_gate($look, 3), 'three of four slots are taken');
	my ($out, $error) = $caller->try($call);
	like($out, qr/^succeeded\|\d+\|\d+\|1$/, 'one slot: a run of one worker');
	like($error, qr/NOTICE:  .*has 1 of 4 workers\n/, 'one slot: the caller is told');
	like($error, qr/HINT:  .*max_worker_processes/, 'one slot: and what to raise');
	is(status_of($look, 'workers'), 1, 'one slot: the ledger says so');
	open_gates($look);
	is($holder->query("SELECT status FROM epro_etl.wait_run($run)"), 'succeeded', 'one slot: the other run succeeds');
	oracle_ok($look, 'one slot');

	restage($look, 1, 1200, 7);
	close_gate($look, $_) foreach (30, 570, 1000, 800);
	$run = $holder->query(q{SELECT epro_etl.start_run('mood', workers => 4)});
	ok(await_gate($look, 4), 'four of four slots are taken');
	($out, $error) = $caller->try($call);
	like($out, qr/^succeeded\|\d+\|\d+\|0$/, 'no slot: a run in the calling session');
	like($error, qr/NOTICE:  .*in the calling session.*\nDETAIL:  .*\nHINT:  .*max_worker_processes/, 'no slot: the caller is told, and what to raise');
	($out, $error) = $caller->try(q{SELECT epro_etl.start_run('mood', workers => 1)});
	like($out, qr/^\d+$/, 'no slot: start_run() has done it by then');
	is($caller->query("SELECT status FROM epro_etl.wait_run($out)"), 'succeeded', 'no slot: and wait_run() finds it');
	($out, $error) = $caller->try(q{CALL epro_etl.run_job('mood', workers => 1)});
	is(sqlstate($error), '', 'no slot: run_job() does it, too');
	open_gates($look);
	is($holder->query("SELECT status FROM epro_etl.wait_run($run)"), 'succeeded', 'no slot: the other run succeeds');
	oracle_ok($look, 'no slot');

	# what has ended has given its slots back
	restage($look, 1, 1200, 7);
	($out, $error) = $caller->try($call);
	is("$out$error", 'succeeded|1200|0|4', 'the slots are free again');
	oracle_ok($look, 'the slots are free again');

	# a session's uncommitted rows are seen by nobody else
	restage($look);
	$caller->query('BEGIN');
	stage($caller, 1, 100, 7);
	($out, $error) = $caller->try($call);
	is($out, 'succeeded|100|0|0', 'a transaction that has written: a run in the calling session');
	like($error, qr/NOTICE:  .*in the calling session.*\nDETAIL:  .*\nHINT:  .*Commit/, 'a transaction that has written: the caller is told');
	$caller->query('ROLLBACK');
	is($look->query('SELECT (SELECT count(*) FROM staging), (SELECT count(*) FROM mood_sink), (SELECT count(*) FROM epro_etl.run_ledger)'), '0|0|0',
		'a transaction that has written: its run rolls back with it');
	oracle_ok($look, 'a transaction that has written');
	$_->close foreach ($holder, $caller);
	return;
}

sub numbers
{
	restage($look, 1, 100);
	foreach my $workers (-1, 1025, 10000)
	{
		my ($out, $error) = $look->try("SELECT epro_etl.run('mood', workers => $workers)");
		is(sqlstate($error), '22023', "workers => $workers is refused");
		like($error, qr/HINT:/, "workers => $workers is refused with a hint");
	}
	foreach my $setting ('batch_size = 0', 'batch_size = -5', 'batch_size = 100001', 'workers = -1', 'workers = 10000')
	{
		my ($out, $error) = $look->try("SET epro_etl.$setting");
		is(sqlstate($error), '22023', "epro_etl.$setting is refused");
	}
	is(sqlstate(($look->try('SET epro_etl.batchsize = 5'))[1]), '42602', 'an unknown setting of the prefix is refused');
	is($look->query(q{SET epro_etl.workers = 3; SELECT workers FROM epro_etl.run('mood'); RESET epro_etl.workers}) =~ /^[12]$/ ? 1 : 0, 1,
		'epro_etl.workers is the default, and a small table takes fewer');
	restage($look, 1, 600);
	$look->query('SET epro_etl.batch_size = 1');
	is($look->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)}), 'succeeded|600', 'chunks of one');
	is(status_of($look, 'chunks, batch_size'), '600|1', 'chunks of one, by the ledger');
	$look->query('RESET epro_etl.batch_size');
	oracle_ok($look, 'chunks of one');
	return;
}

# Each key file that is not fit to be one, with workers and without.
sub key
{
	my $good = $node->basedir . '/pseudonym.key';
	my $key = 'k' x 32;
	my %files = (
		'missing' => $node->basedir . '/nosuch.key',
		'empty' => key_file($node, 'empty.key', ''),
		'a newline' => key_file($node, 'newline.key', "\n"),
		'too short' => key_file($node, 'short.key', 'short'),
		'too long' => key_file($node, 'long.key', 'k' x 5000),
		'world-readable' => key_file($node, 'world.key', $key, 0644),
		'group-readable' => key_file($node, 'group.key', $key, 0640),
		'unreadable' => key_file($node, 'unreadable.key', $key, 0000),
		'a directory' => $node->basedir . '/folder.key',
		'a link' => $node->basedir . '/link.key',
		'a pipe' => $node->basedir . '/pipe.key',
		'not set' => '',
	);
	mkdir $files{'a directory'}, 0700 or die "could not make a directory: $!";
	symlink $good, $files{'a link'} or die "could not make a link: $!";
	require POSIX;
	POSIX::mkfifo($files{'a pipe'}, 0600) or die "could not make a pipe: $!";

	restage($look, 1, 600, 7);
	foreach my $how (sort keys %files)
	{
		$look->query("SET epro_etl.key_file = '$files{$how}'");
		foreach my $workers (0, 2)
		{
			my $name = "key file $how, $workers workers";
			my ($out, $error) = $look->try("SELECT epro_etl.run('mood', workers => $workers)");
			is(sqlstate($error), 'EP005', "$name: refused");
			unlike($error, qr/k{8}/, "$name: without the key");
			is($look->query('SELECT count(*) FROM staging'), 600, "$name: nothing moved");
			is(survivors($look), 0, "$name: no worker is left");
			is(status_of($look, 'status, sqlstate'), 'failed|EP005', "$name: status") if $workers > 0;
		}
	}
	$look->query('RESET epro_etl.key_file');
	oracle_ok($look, 'key files');

	# another key makes other pseudonyms; the same key the same
	my @keys = map { key_file($node, "other$_.key", 'o' x 32 . "\n" x $_) } (0, 1);
	my @made;
	foreach my $file (@keys, $good)
	{
		restage($look, 1, 50);
		# the keyring would refuse the others
		$look->query('TRUNCATE epro_etl.key_version');
		$look->query("SET epro_etl.key_file = '$file'");
		$look->query(q{SELECT epro_etl.run('mood', workers => 1)});
		push @made, $look->query(q{SELECT md5(string_agg(subject_key, ',' ORDER BY source_id)) FROM mood_sink});
	}
	$look->query('RESET epro_etl.key_file');
	is($made[0], $made[1], 'the key file: a last newline is not part of the key');
	isnt($made[0], $made[2], 'the key file: the worker reads the one that the caller named');

	# Before the library is loaded the setting is a mere name to the server, and
	# anybody may set it; it must have no effect.
	$look->query(q{CREATE ROLE loader LOGIN; GRANT USAGE ON SCHEMA epro_etl TO loader; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA epro_etl TO loader;
		GRANT SELECT, DELETE ON staging TO loader; GRANT SELECT, INSERT ON mood_sink TO loader});
	foreach my $workers (0, 1)
	{
		my $loader = EproTest::Psql->new($node, user => 'loader', options => { 'epro_etl.key_file' => $keys[0] });
		restage($look, 1, 50);
		$look->query('TRUNCATE epro_etl.key_version');
		my ($out, $error) = $loader->try("SET epro_etl.key_file = '$keys[0]'; SELECT status FROM epro_etl.run('mood', workers => $workers)");
		my $got = $look->query(q{SELECT md5(string_agg(subject_key, ',' ORDER BY source_id)) FROM mood_sink});
		ok($got eq $made[2] || ($got eq '' && sqlstate($error) eq 'EP005'), "the key file: not everybody may name another, $workers workers")
		  or diag($got eq $made[0] ? 'the key that the caller has named is in use' : $error);
		is(sqlstate(($loader->try('SHOW epro_etl.key_file'))[1]), '42501', 'the key file: not shown to everybody');
		is(sqlstate(($loader->try("SET epro_etl.key_file = '$keys[0]'"))[1]), '42501', 'the key file: nor to be set');
		$loader->close;
	}
	return;
}

# Settings, as they are at the call, are the workers' too.
sub settings
{
	restage($look, 1, 200);
	$look->query(q{
		ALTER TABLE mood_sink ADD seen text;
		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NEW.seen := concat_ws('|', current_setting('TimeZone'), current_setting('DateStyle'), coalesce(nullif(current_setting('app.study', true), ''), 'none'),
				current_setting('work_mem'), current_setting('transaction_isolation'), current_setting('search_path'),
				current_setting('application_name'), to_char(NEW.authored, 'HH24:MI'));
			RETURN NEW;
		END $$;
		CREATE TRIGGER see BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION see();
		CREATE SCHEMA elsewhere});
	# the connection's own, the session's and the transaction's
	my $caller = EproTest::Psql->new($node, options => { log_disconnections => 'off', work_mem => '5MB' }, name => 'caller');
	$caller->query(q{SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET app.study = 'ST01';
		SET default_transaction_isolation = 'serializable'; SET default_transaction_deferrable = on; SET client_encoding = 'LATIN1'; SET IntervalStyle = 'iso_8601'});
	$caller->query(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL search_path = elsewhere, public});
	my ($out, $error) = $caller->try(q{SELECT status, claimed, workers > 0 FROM epro_etl.run('mood', workers => 2)});
	is("$out$error", 'succeeded|200|t', 'settings: a run in a transaction of its own kind');
	$caller->query('COMMIT');
	my $run = $look->query('SELECT max(run_id) FROM epro_etl.run_ledger');
	like($look->query(q{SELECT string_agg(DISTINCT regexp_replace(seen, 'worker \d+\|\d\d:\d\d', 'worker'), '; ') FROM mood_sink}),
		qr/^Asia\/Tokyo\|German, [A-Z]+\|ST01\|5MB\|read committed\|elsewhere, public\|epro_etl run $run worker$/, 'settings: the workers have the caller\'s');
	is($look->query(q{SELECT seen LIKE '%|17:01' FROM mood_sink WHERE source_id = 1}), 't', 'settings: its time zone is at work');
	oracle_ok($look, 'settings');

	# a transaction that may write, in a session whose transactions may not
	restage($look, 1, 200);
	$caller->query(q{SET statement_timeout = '10s'; SET default_transaction_read_only = on; BEGIN READ WRITE});
	($out, $error) = $caller->try(q{SELECT status, claimed, workers > 0 FROM epro_etl.run('mood', workers => 2)});
	is("$out$error", 'succeeded|200|t', 'settings: a run that may write, where most may not');
	$caller->try('ROLLBACK');
	oracle_ok($look, 'settings, read-only by default');

	# and in the next run of the same session, those of that call
	restage($look, 1, 200);
	$caller->query(q{RESET ALL});
	$caller->query(q{SELECT epro_etl.run('mood', workers => 2)});
	like($look->query(q{SELECT string_agg(DISTINCT regexp_replace(seen, 'worker \d+\|\d\d:\d\d', 'worker'), '; ') FROM mood_sink}),
		qr/^UTC\|ISO, [A-Z]+\|none\|5MB\|read committed\|/, 'settings: as they are at each call');
	oracle_ok($look, 'settings, reset');
	$look->query('DROP TRIGGER see ON mood_sink; ALTER TABLE mood_sink DROP seen');
	$caller->close;
	return;
}

# Whoever the caller acts as, the workers act as.
sub roles
{
	$look->query(q{
		CREATE ROLE nologin_loader; CREATE ROLE definer; CREATE ROLE peeper LOGIN;
		GRANT USAGE ON SCHEMA epro_etl TO peeper;
		GRANT SELECT ON gate, mood_sink TO PUBLIC;
		GRANT SELECT, DELETE ON staging TO loader, nologin_loader, definer;
		GRANT INSERT ON mood_sink TO loader, nologin_loader, definer;
		GRANT USAGE ON SCHEMA epro_etl TO loader, nologin_loader, definer;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA epro_etl TO loader, nologin_loader, definer;
		ALTER TABLE mood_sink ADD acting text, ADD session text;
		CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN NEW.acting := current_user; NEW.session := session_user; RETURN NEW; END $$;
		CREATE TRIGGER who BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION who();
		CREATE FUNCTION run_as_definer(workers int) RETURNS text LANGUAGE sql SECURITY DEFINER
			AS $$ SELECT status FROM epro_etl.run('mood', workers => $1) $$;
		ALTER FUNCTION run_as_definer(int) OWNER TO definer});
	my $me = $look->query('SELECT session_user');
	my $who = q{SELECT string_agg(DISTINCT acting || ' of ' || session, '; ') FROM mood_sink};

	foreach my $workers (0, 2)
	{
		my $super = EproTest::Psql->new($node);
		foreach my $case (
			[ 'SET ROLE loader', 'loader', "loader of $me" ],
			[ 'SET ROLE nologin_loader', 'nologin_loader', "nologin_loader of $me" ],
			[ 'SET SESSION AUTHORIZATION loader', 'loader', 'loader of loader' ])
		{
			restage($look, 1, 300, 7);
			$super->query($case->[0]);
			is($super->query("SELECT status FROM epro_etl.run('mood', workers => $workers)"), 'succeeded', "$case->[0], $workers workers: succeeds");
			is($look->query($who), $case->[2], "$case->[0], $workers workers: acting as the caller");
			is(status_of($look, 'current_user_name'), $case->[1], "$case->[0], $workers workers: by the ledger, too");
			oracle_ok($look, "$case->[0], $workers workers");
			$super->query('RESET SESSION AUTHORIZATION; RESET ROLE');
		}
		# a session of a role that may not log in has no worker that could be it
		restage($look, 1, 300, 7);
		$super->query('SET SESSION AUTHORIZATION nologin_loader');
		my ($out, $error) = $super->try("SELECT status FROM epro_etl.run('mood', workers => $workers)");
		ok($out eq 'succeeded' || $error =~ /log in|LOGIN/, "SET SESSION AUTHORIZATION to a role without LOGIN, $workers workers: succeeds, or says why not")
		  or diag("$out\n$error");
		$super->query('RESET SESSION AUTHORIZATION');
		is(survivors($look), 0, 'a role without LOGIN: no worker is left');
		oracle_ok($look, 'a role without LOGIN');
		$super->close;

		restage($look, 1, 300, 7);
		my $peeper = EproTest::Psql->new($node, user => 'peeper');
		is($peeper->query("SELECT run_as_definer($workers)"), 'succeeded', "SECURITY DEFINER, $workers workers: succeeds");
		is($look->query($who), 'definer of peeper', "SECURITY DEFINER, $workers workers: acting as the definer");
		oracle_ok($look, "SECURITY DEFINER, $workers workers");
		is(sqlstate(($peeper->try("SELECT epro_etl.run('mood', workers => $workers)"))[1]), '42501', "no EXECUTE on run(), $workers workers");
		$peeper->close;
	}
	$look->query('DROP TRIGGER who ON mood_sink; ALTER TABLE mood_sink DROP acting, DROP session');
	return;
}

# What the caller may not, the workers may not, and nothing moves.
sub privileges
{
	my $loader = EproTest::Psql->new($node, user => 'loader');

	foreach my $case (
		[ 'DELETE ON staging', 'source' ],
		[ 'SELECT ON staging', 'source' ],
		[ 'INSERT ON mood_sink', 'sink' ])
	{
		restage($look, 1, 300, 7);
		$look->query("REVOKE $case->[0] FROM loader");
		foreach my $workers (0, 2)
		{
			my $name = "no $case->[0], $workers workers";
			my ($out, $error) = $loader->try("SELECT epro_etl.run('mood', workers => $workers)");
			is(sqlstate($error), '42501', "$name: refused");
			like($error, qr/permission denied for $case->[1]/, "$name: says for what");
			like($error, qr/HINT:/, "$name: says what it takes");
			is($look->query('SELECT count(*) FROM staging'), 300, "$name: nothing moved");
			is(status_of($look, 'status, sqlstate'), 'failed|42501', "$name: status") if $workers > 0;
			is(survivors($look), 0, "$name: no worker is left");
		}
		$look->query("GRANT $case->[0] TO loader");
		is($loader->query(q{SELECT status FROM epro_etl.run('mood', workers => 2)}), 'succeeded', "$case->[0] given back: succeeds");
		oracle_ok($look, "no $case->[0]");
	}
	# nobody reads originals or forges the ledger with what a run needs
	foreach my $table (qw(quarantine finding run_ledger run_worker))
	{
		is(sqlstate(($loader->try("SELECT FROM epro_etl.$table"))[1]), '42501', "epro_etl.$table is not for the caller");
	}
	$loader->close;
	return;
}

# Policies on source and sink that read a setting of the caller.
sub row_security
{
	$look->query(q{
		GRANT UPDATE ON staging TO loader;
		ALTER TABLE staging ENABLE ROW LEVEL SECURITY;
		ALTER TABLE mood_sink ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own_visit ON staging USING (visit = current_setting('app.visit'));
		CREATE POLICY own_visit ON mood_sink FOR INSERT TO loader WITH CHECK (visit = current_setting('app.visit') AND source_id <> 101)});
	foreach my $workers (0, 2)
	{
		my $loader = EproTest::Psql->new($node, user => 'loader');
		restage($look, 1, 300);
		$loader->query(q{SET app.visit = 'V1'});
		is($loader->query("SELECT status, claimed, loaded, rejected, remaining FROM epro_etl.run('mood', workers => $workers)"), 'succeeded|60|59|1|0',
			"row security, $workers workers: what the caller may see is claimed, what it may insert is loaded");
		is($look->query('SELECT string_agg(DISTINCT visit, \',\'), count(*) FROM mood_sink'), 'V1|59', "row security, $workers workers: and nothing else");
		is($look->query('SELECT string_agg(DISTINCT visit, \',\'), count(*) FROM staging'), 'V0,V2,V3,V4|240', "row security, $workers workers: the rest is in staging");
		is($look->query('SELECT source_id FROM epro_etl.quarantine'), 101, "row security, $workers workers: what the sink's policy refuses is rejected");
		oracle_ok($look, "row security, $workers workers");
		$loader->close;
	}
	$look->query('REVOKE UPDATE ON staging FROM loader');
	foreach my $workers (0, 2)
	{
		my $loader = EproTest::Psql->new($node, user => 'loader');
		restage($look, 1, 300);
		$loader->query(q{SET app.visit = 'V1'});
		my ($out, $error) = $loader->try("SELECT epro_etl.run('mood', workers => $workers)");
		is(sqlstate($error), '42501', "row security without UPDATE, $workers workers: refused");
		like($error, qr/HINT:  .*UPDATE/, "row security without UPDATE, $workers workers: says what it takes");
		oracle_ok($look, "row security without UPDATE, $workers workers");
		$loader->close;
	}
	$look->query('GRANT UPDATE ON staging TO loader');

	# policies of a command each: a row that may be read and deleted is claimed, or the run says why not
	$look->query(q{
		DROP POLICY own_visit ON staging;
		CREATE POLICY reads ON staging FOR SELECT USING (true);
		CREATE POLICY deletes ON staging FOR DELETE USING (true)});
	my $loader = EproTest::Psql->new($node, user => 'loader');
	restage($look, 1, 300);
	$loader->query(q{SET app.visit = 'V1'});
	my ($out, $error) = $loader->try(q{SELECT claimed, remaining FROM epro_etl.run('mood', workers => 1)});
	ok($out eq '300|0' || sqlstate($error) ne '' || $out eq '0|300', 'policies for SELECT and DELETE only: all is claimed, or counted as remaining')
	  or diag("$out$error");
	oracle_ok($look, 'policies for SELECT and DELETE only');
	$loader->close;
	$look->query('ALTER TABLE staging DISABLE ROW LEVEL SECURITY; ALTER TABLE mood_sink DISABLE ROW LEVEL SECURITY');
	return;
}

# A standby can look and not run; promoted it can.
sub standby
{
	restage($look, 1, 300, 7);
	$look->query(q{SELECT epro_etl.run('mood', workers => 2, max_rejects => 0)});
	my $left = $look->query('SELECT count(*) FROM staging');
	$node->backup('copy');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'copy', has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby);

	my $there = observer($standby);
	foreach my $call (q{SELECT epro_etl.run('mood')}, q{SELECT epro_etl.run('mood', workers => 0)}, q{SELECT epro_etl.run('mood', dry_run => true)},
		q{SELECT epro_etl.start_run('mood')}, q{CALL epro_etl.run_job('mood')})
	{
		is(sqlstate(($there->try($call))[1]), '25006', "on a standby: $call is refused");
	}
	is(survivors($there), 0, 'on a standby: no worker is left');
	is(status_of($there), 'stopped', 'on a standby: the ledger can be read');
	is($there->query('SELECT count(*) FROM epro_etl.stat_progress'), 0, 'on a standby: so can the live view');
	oracle_ok($there, 'on a standby');
	$standby->promote;
	is($there->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)}), "succeeded|$left", 'promoted: the run succeeds');
	oracle_ok($there, 'promoted');
	$there->close;
	$standby->stop('fast');
	return;
}
