# The caller's signal: whatever ends the caller's wait ends every worker of the
# run before control returns, at whatever point the workers were; what was
# committed stays, the chunk in flight is back in staging, the ledger says why.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

use constant ROWS => 600;
use constant CHUNK => 50;

my $node = create_node('cancel', conf => "client_connection_check_interval = '50ms'\n");
create_fixture($node);
my $look = observer($node);
my $locker = observer($node);

# Where the workers stand when the end comes. The first two are before there is
# a chunk: in the midst of connecting, and of opening the run.
my @points = (
	{
		name => 'while connecting',
		workers => 2,
		lock => 'pg_catalog.pg_authid',
	},
	{
		name => 'before the run is in the ledger',
		workers => 2,
		lock => 'epro_etl.run_ledger',
	},
	{ name => 'before the first response', workers => 1, gates => [1] },
	{ name => 'in the first chunk', workers => 1, gates => [25] },
	{ name => 'between first and second chunk', workers => 1, gates => [51] },
	{ name => 'in the fifth chunk', workers => 1, gates => [225] },
	{ name => 'at the last response', workers => 1, gates => [ROWS] },
	{ name => 'with two workers in chunks', workers => 2, gates => [ 30, 570 ] },
);

# How the end comes. At "now" the workers stand where they should.
my @ends = (
	{
		name => 'cancel',
		now => sub { $look->query('SELECT pg_cancel_backend(' . $_[0]->backend . ')') },
		sqlstate => '57014',
		status => 'canceled',
	},
	{
		name => 'statement_timeout',
		before => q{SET statement_timeout = '400ms'},
		sqlstate => '57014',
		status => 'timed out',
	},
	{
		name => 'timeout of the run',
		arguments => q{, timeout => '400ms'},
		sqlstate => 'EP001',
		status => 'timed out',
	},
	{
		name => 'terminate',
		now => sub { $look->query('SELECT pg_terminate_backend(' . $_[0]->backend . ')') },
		sqlstate => '57P01',
		status => 'canceled',
		gone => 1,
	},
	{
		name => 'client disconnect',
		now => sub { kill 'KILL', $_[0]->client },
		status => 'canceled',
		gone => 1,
	},
);

foreach my $end (@ends)
{
	foreach my $point (@points)
	{
		end_at($end, $point);
	}
}
second_cancel('pg_cancel_backend', 0);
second_cancel('pg_terminate_backend', 1);
never_lets_go();
start_run_has_its_own_time();
worker_signalled('pg_cancel_backend', 1, '57014', 'canceled');
worker_signalled('pg_cancel_backend', 2, '57014', 'canceled');
worker_signalled('pg_terminate_backend', 1, '57P01', 'failed');
worker_signalled('pg_terminate_backend', 2, '57P01', 'failed');
worker_stopped_while_connecting();
canceled_before_all_have_connected();
error_after_launch();

$look->close;
$locker->close;
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/,
	'no process crashed');
done_testing();

sub end_at
{
	my ($end, $point) = @_;
	my $name = "$end->{name} $point->{name}";
	my $reached = 1;

	restage($look, 1, ROWS, 7);
	close_gate($look, $_) foreach @{ $point->{gates} || [] };
	my $caller = EproTest::Psql->new($node);
	my $first = $caller->backend;
	$locker->query("BEGIN; LOCK TABLE $point->{lock} IN ACCESS EXCLUSIVE MODE") if $point->{lock};
	$caller->query($end->{before}) if $end->{before};

	# the count of workers is the caller's very next statement after its error
	$caller->send("SELECT * FROM epro_etl.run('mood', workers => $point->{workers}" . ($end->{arguments} || '') . ");\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	if ($end->{now})
	{
		$reached = $point->{lock}
		  ? until_true($look, "SELECT count(*) > 0 FROM pg_locks WHERE relation = '$point->{lock}'::regclass AND NOT granted")
		  : await_gate($look, scalar @{ $point->{gates} });
		$end->{now}->($caller);
	}
	my ($out, $error) = $end->{status} && $end->{name} eq 'client disconnect' ? ('', '') : $caller->wait;
	if ($end->{gone})
	{
		# psql may hear of the end a moment before the process has gone
		until_true($look, "SELECT count(*) FROM pg_stat_get_activity($first)", 0);
		is(survivors($look), 0, "$name: no worker survived");
	}
	else
	{
		is($out, 'survivors 0', "$name: no worker survived");
	}
	is(sqlstate($error), $end->{sqlstate}, "$name: the caller's SQLSTATE") if $end->{sqlstate};
	ok($reached, "$name: the workers were there");

	$locker->query('ROLLBACK') if $point->{lock};
	open_gates($look);
	if ($point->{lock})
	{
		# it may not have come into the ledger at all
		like(status_of($look), qr/^(?:$end->{status})?$/, "$name: status");
	}
	else
	{
		is(status_of($look), $end->{status}, "$name: status");
	}
	if ($end->{now} && $point->{gates} && $point->{workers} == 1)
	{
		my $committed = int(($point->{gates}->[0] - 1) / CHUNK) * CHUNK;
		is(status_of($look, 'claimed'), $committed, "$name: what was committed stays");
		is($look->query('SELECT count(*) FROM staging'), ROWS - $committed, "$name: the chunk in flight is back");
	}
	oracle_ok($look, $name);
	is( $look->query(q{SELECT status || ' ' || remaining FROM epro_etl.run('mood', workers => 2)}),
		'succeeded 0', "$name: the next run does the rest");
	is($look->query('SELECT count(*) FROM staging'), 0, "$name: nothing is left in staging");
	oracle_ok($look, "$name, after the next run");
	$caller->close;
	return;
}

# The caller is signalled again, and again, while it waits for a worker whose
# trigger does not let go: it must not leave before the worker has ended.
sub second_cancel
{
	my ($signal, $gone) = @_;
	my $name = "$signal during the clean-up";

	restage($look, 1, ROWS);
	close_gate($look, 225, 'stubborn');
	my $caller = EproTest::Psql->new($node);
	my $first = $caller->backend;
	$caller->send("SELECT * FROM epro_etl.run('mood', workers => 1);\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	ok(await_gate($look), "$name: the worker is in its chunk");
	$look->query("SELECT pg_cancel_backend($first)");
	ok(await_stubborn($look), "$name: the worker does not end");
	foreach (1 .. 5)
	{
		$look->query("SELECT $signal($first)");
		# a round trip of the worker: it has been told again
		until_true($look, 'SELECT count(*) FROM pg_locks WHERE locktype = \'advisory\' AND NOT granted AND classid = 78', 1);
	}
	is(survivors($look), 1, "$name: the worker is still there");
	is($look->query("SELECT count(*) FROM pg_stat_get_activity($first)"), 1, "$name: so is the caller");
	ok($caller->busy, "$name: and has no answer yet");
	open_gates($look);
	my ($out, $error) = $caller->wait;
	if ($gone)
	{
		until_true($look, "SELECT count(*) FROM pg_stat_get_activity($first)", 0);
		is(survivors($look), 0, "$name: no worker survived");
	}
	else
	{
		is($out, 'survivors 0', "$name: no worker survived");
		is(sqlstate($error), '57014', "$name: the caller's SQLSTATE");
	}
	is(status_of($look), 'canceled', "$name: status");
	oracle_ok($look, $name);
	$caller->close;
	return;
}

# A trigger that swallows every cancel: terminated in the end, and the ledger
# still says what began it.
sub never_lets_go
{
	my $name = 'a trigger that swallows cancels';

	restage($look, 1, ROWS);
	close_gate($look, 225, 'stubborn');
	my $caller = EproTest::Psql->new($node);
	$caller->send("SELECT * FROM epro_etl.run('mood', workers => 1);\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	ok(await_gate($look), "$name: the worker is in its chunk");
	$look->query('SELECT pg_cancel_backend(' . $caller->backend . ')');
	my ($out, $error) = $caller->wait;
	is($out, 'survivors 0', "$name: no worker survived");
	is(sqlstate($error), '57014', "$name: the caller's SQLSTATE");
	open_gates($look);
	is(status_of($look), 'canceled', "$name: status");
	oracle_ok($look, $name);
	$caller->close;
	return;
}

# The statement that started a run is over: its timeout is not the run's.
sub start_run_has_its_own_time
{
	my $name = 'start_run() under statement_timeout';

	restage($look, 1, ROWS);
	close_gate($look, 225);
	my $caller = EproTest::Psql->new($node);
	$caller->query(q{SET statement_timeout = '300ms'});
	my $run = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 1)});
	$caller->query('SET statement_timeout = 0');
	await_gate($look);
	until_true($look, "SELECT clock_timestamp() > started_at + interval '600 ms' FROM epro_etl.run_ledger WHERE run_id = $run");
	is(status_of($look), 'running', "$name: the run goes on after the statement's time");
	open_gates($look);
	my ($out, $error) = $caller->try("SELECT status FROM epro_etl.wait_run($run)");
	is($out, 'succeeded', "$name: and ends well");

	# a wait's own timeout is the caller's signal again
	restage($look, 1, ROWS);
	close_gate($look, 225);
	$run = $caller->query(q{SELECT epro_etl.start_run('mood', workers => 1)});
	$caller->query(q{SET statement_timeout = '300ms'});
	($out, $error) = $caller->try("SELECT status FROM epro_etl.wait_run($run);\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	is($out, 'survivors 0', 'statement_timeout of wait_run(): no worker survived');
	is(sqlstate($error), '57014', "statement_timeout of wait_run(): the caller's SQLSTATE");
	open_gates($look);
	is(status_of($look), 'timed out', 'statement_timeout of wait_run(): status');
	oracle_ok($look, 'statement_timeout of wait_run()');
	$caller->close;
	return;
}

# Not the caller but one of its workers is signalled: the caller gets that
# first cause, and the others end too.
sub worker_signalled
{
	my ($signal, $workers, $sqlstate, $status) = @_;
	my $name = "$signal of one of $workers workers";

	restage($look, 1, ROWS);
	close_gate($look, $_) foreach (30, 570)[ 0 .. $workers - 1 ];
	my $caller = EproTest::Psql->new($node);
	$caller->send("SELECT * FROM epro_etl.run('mood', workers => $workers);\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	ok(await_gate($look, $workers), "$name: the workers are in their chunks");
	$look->query("SELECT $signal(pid) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker' ORDER BY pid LIMIT 1");
	my ($out, $error) = $caller->wait;
	is($out, 'survivors 0', "$name: no worker survived");
	is(sqlstate($error), $sqlstate, "$name: the caller gets the first cause");
	like($error, qr/DETAIL:  In worker [12], chunk \d+, of run \d+/, "$name: and is told where");
	open_gates($look);
	is(status_of($look, 'status, sqlstate'), "$status|$sqlstate", "$name: status");
	oracle_ok($look, $name);
	is($look->query(q{SELECT status FROM epro_etl.run('mood', workers => 2)}), 'succeeded', "$name: the next run does the rest");
	oracle_ok($look, "$name, after the next run");
	$caller->close;
	return;
}

# A worker that is terminated before it is anybody.
sub worker_stopped_while_connecting
{
	my $name = 'a worker terminated while connecting';

	restage($look, 1, ROWS);
	my $caller = EproTest::Psql->new($node);
	$locker->query('BEGIN; LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE');
	$caller->send("SELECT * FROM epro_etl.run('mood', workers => 2);\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	ok( until_true($look, q{SELECT count(*) FROM pg_locks WHERE relation = 'pg_catalog.pg_authid'::regclass AND NOT granted}, 2),
		"$name: the workers are connecting");
	my $pid = $look->query(q{SELECT min(pid) FROM pg_locks WHERE relation = 'pg_catalog.pg_authid'::regclass AND NOT granted});
	kill 'TERM', $pid;
	my ($out, $error) = $caller->wait;
	is($out, 'survivors 0', "$name: no worker survived");
	is(sqlstate($error), '57P01', "$name: the caller gets the first cause");
	$locker->query('ROLLBACK');
	oracle_ok($look, $name);
	$caller->close;
	return;
}

# One worker is at work, the other has not connected yet when the cancel comes:
# whoever is the last to leave must not need a database that it has not got.
# The operating system stops the second for the moment that matters.
sub canceled_before_all_have_connected
{
	my $name = 'cancel while the second worker is connecting';

	restage($look, 1, ROWS);
	close_gate($look, 225);
	my $caller = EproTest::Psql->new($node);
	$look->query('SELECT FROM epro_etl.stat_progress');
	$locker->query('BEGIN; LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE');
	$caller->send("SELECT * FROM epro_etl.run('mood', workers => 2);\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	ok( until_true($look, q{SELECT count(*) FROM pg_locks WHERE relation = 'pg_catalog.pg_authid'::regclass AND NOT granted}, 2),
		"$name: both are connecting");
	my ($first, $second) = split /\n/, $look->query('SELECT pid FROM epro_etl.stat_progress ORDER BY worker');
	kill 'STOP', $second;
	$locker->query('ROLLBACK');
	ok(await_gate($look), "$name: the first is at work");
	$look->query('SELECT pg_cancel_backend(' . $caller->backend . ')');
	ok(until_true($look, "SELECT count(*) FROM pg_stat_get_activity($first)", 0), "$name: the first has ended");
	kill 'CONT', $second;
	my ($out, $error) = $caller->wait;
	is($out, 'survivors 0', "$name: no worker survived");
	is(sqlstate($error), '57014', "$name: the caller's SQLSTATE");
	# a crash of the second would take the whole server along
	if (PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /was terminated by signal/)
	{
		fail("$name: the server crashed");
		await_back($node);
		$_->close foreach ($look, $locker);
		($look, $locker) = (observer($node), observer($node));
	}
	open_gates($look);
	is(status_of($look), 'canceled', "$name: status");
	oracle_ok($look, $name);
	$caller->close;
	return;
}

# An error of the call itself, after its workers were started: a procedure
# cannot commit where the caller has a subtransaction open.
sub error_after_launch
{
	my $name = 'run_job() in a block with an exception handler';

	restage($look, 1, ROWS);
	close_gate($look, 225);
	my $caller = EproTest::Psql->new($node);
	# either it waits, as run() does, or it raises an error: then nobody works
	$caller->send(q{DO $$ BEGIN BEGIN CALL epro_etl.run_job('mood', workers => 1);
		EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'got %', SQLSTATE; END; END $$;} . "\n"
		  . q{SELECT 'survivors ' || count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'});
	until_true($look, q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND NOT granted AND classid = 77)
		OR (SELECT state = 'idle' FROM pg_stat_activity WHERE pid = } . $caller->backend . ')');
	open_gates($look) if $caller->busy;
	my ($out, $error) = $caller->wait;
	is($out, 'survivors 0', "$name: no worker survived");
	open_gates($look);
	$caller->close;
	until_true($look, q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl worker'}, 0);
	oracle_ok($look, $name);
	return;
}
