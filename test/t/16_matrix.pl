# Every way in which a call can end before it is done, in every topology, at
# every point of a chunk: afterwards no worker and no remote query is left, the
# caller has the right SQLSTATE, nothing is lost and nothing is twice, and the
# next run, or the stream that lives on, does the rest.
#
# The table below says what is right; each of its cells is one assertion. A cell
# is held at its point by a lock that the test has, or by a commit that waits for
# a standby which does not exist, until the way has had its effect. A time that
# is over before the point was reached is given again, three times as long.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use RemoteTest;
use Test::More;
use Time::HiRes qw(sleep time);

use constant ROWS => 400;

# milliseconds that a call is given at first, if it is a timeout that ends it
use constant TIME => 250;

# What is right. First the SQLSTATE of the caller ("-": no error, or nobody who
# could be told), then what is to be found at once after it:
#   none, some, all   so many responses are loaded, and no process of ours is left
#   lives             the stream is up, also later, and loads all by itself
#   gone              there is no stream, nor is one wanted
#   soon              a remote query is left, until that server looks for its
#                     client: postgres_fdw cancels nothing that commits. After
#                     the end of the calling process it is always so.
# "waits": the way does nothing as long as the cell is held; so does a timeout
# that ended with its statement, when the commit waits for a standby, and so does
# a client's end there, where the server does not look for it.
# In clean-up a cancel follows a timeout, and the statement's timeout that of
# with_timeout(): these are not renamed, but where a run of workers says what has
# ended it. Nor are they where the caller's own clean-up has swallowed them.
# A number: there is no such cell, for the reason of that number.
my $table = <<'TABLE';
way                | statement_timeout | with_timeout     | run timeout       | cancel          | terminate       | client gone      | kill -9     | both timeouts

inline: the caller does it all in its transaction
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit          | waits - all       | waits - all      | waits - all       | - all           | - all           | waits - all      | - all       | waits - all
in clean-up        | 57014 none        | 57014 none       | 57014 none        | 57014 none      | 57P01 none      | - none           | - none      | 57014 none

batch: its commits are those of workers, which stay
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit          | 57014 some        | EP001 some       | EP001 some        | 57014 some      | 57P01 some      | - some           | - some      | EP001 some
in clean-up        | 57014 none        | 57014 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | 57014 none

lookup local, inline: mid-chunk and clean-up are in the question
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit          | waits - all       | waits - all      | waits - all       | - all           | - all           | waits - all      | - all       | waits - all
in clean-up        | 57014 none        | 57014 none       | 57014 none        | 57014 none      | 57P01 none      | - none           | - none      | 57014 none

lookup local, batch: mid-chunk and clean-up are in the question
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit          | 57014 some        | EP001 some       | EP001 some        | 57014 some      | 57P01 some      | - some           | - some      | EP001 some
in clean-up        | 57014 none        | 57014 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | 57014 none

lookup foreign, inline: mid-chunk and clean-up are there, where the cancel that began it is told before the terminate
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit          | waits - all       | waits - all      | waits - all       | - all           | - all           | waits - all      | - all       | waits - all
in clean-up        | 57014 none        | 57014 none       | 57014 none        | 57014 none      | 57014 none      | - none           | - none      | 57014 none

lookup foreign, batch: mid-chunk and clean-up are there
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit          | 57014 some        | EP001 some       | EP001 some        | 57014 some      | 57P01 some      | - some           | - some      | EP001 some
in clean-up        | 57014 none        | 57014 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | 57014 none

sink foreign, inline: mid-chunk and clean-up are there, where the cancel that began it is told before the terminate
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit there    | waits - all       | waits - all      | waits - all       | 57014 none soon | 57P01 none      | - none           | - none      | waits - all
in commit          | waits - all       | waits - all      | waits - all       | - all           | - all           | waits - all      | - all       | waits - all
in clean-up        | 57014 none        | 57014 none       | 57014 none        | 57014 none      | 57014 none      | - none           | - none      | 57014 none

sink foreign, batch: mid-chunk and clean-up are there
before first chunk | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
mid-chunk          | 57014 none        | EP001 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | EP001 none
in commit there    | 57014 none soon   | EP001 none soon  | EP001 none soon   | 57014 none soon | 57P01 none      | - none           | - none      | EP001 none soon
in commit          | 57014 some        | EP001 some       | EP001 some        | 57014 some      | 57P01 some      | - some           | - some      | EP001 some
in clean-up        | 57014 none        | 57014 none       | EP001 none        | 57014 none      | 57P01 none      | - none           | - none      | 57014 none

stream stop: a wish that its caller does not live to see fulfilled is taken back; its timeout ends a drain at once
before first chunk | 57014 lives       | EP001 lives      | - none gone       | 57014 lives     | 57P01 lives     | - lives          | - lives     | EP001 lives
mid-chunk          | 57014 lives       | EP001 lives      | - none gone       | 57014 lives     | 57P01 lives     | - lives          | - lives     | EP001 lives
in commit          | 57014 lives       | EP001 lives      | - some gone       | 57014 lives     | 57P01 lives     | - lives          | - lives     | EP001 lives
in clean-up        | 57014 lives       | EP001 lives      | waits - none gone | 57014 lives     | 57P01 lives     | - lives          | - lives     | EP001 lives
in its own commit  | waits - all gone  | waits - all gone | waits - all gone  | - all gone      | - all gone      | waits - all gone | - all gone  | waits - all gone

stream start: its own transaction; mid-chunk is that of a stream which is up already and is started again
before first chunk | 57014 none gone   | EP001 none gone  | 1                 | 57014 none gone | 57P01 none gone | - none gone      | - none gone | EP001 none gone
mid-chunk          | 57014 lives       | EP001 lives      | 1                 | 57014 lives     | 57P01 lives     | - lives          | - lives     | EP001 lives
in its own commit  | waits - lives     | waits - lives    | 1                 | - lives         | - lives         | waits - lives    | - lives     | waits - lives
in clean-up        | 57014 none gone   | 57014 none gone  | 1                 | 57014 none gone | 57P01 none gone | - none gone      | - none gone | 57014 none gone
TABLE

my %reasons = (1 => 'start_stream() has no timeout of its own: it waits for nothing but locks');

my ($look, $locker, $there);

# How it ends. A way that strikes does so when the point is reached; the others
# are a time that is over. status: what a run of workers has in the ledger.
my %ways = (
	'statement_timeout' => { set => sub { "SET statement_timeout = '$_[0]ms'" }, status => 'timed out' },
	'with_timeout' => {
		around => sub { within(@_) },
		status => 'timed out'
	},
	# the statement's is the outer one, and ends later: in the clean-up of the inner one
	'both timeouts' => {
		set => sub { "SET statement_timeout = '" . 2 * $_[0] . "ms'" },
		around => sub { within(@_) },
		status => 'timed out',
		both => 1
	},
	'run timeout' => { argument => sub { ", timeout => '$_[0] ms'" }, status => 'timed out' },
	'cancel' => { strike => sub { $look->query('SELECT pg_cancel_backend(' . $_[0]->backend . ')') }, status => 'canceled' },
	'terminate' =>
	  { strike => sub { $look->query('SELECT pg_terminate_backend(' . $_[0]->backend . ')') }, ends => 1, status => 'canceled' },
	'client gone' => {
		strike => sub { kill 'KILL', $_[0]->client },
		# there is no client to strike a second time
		again => sub { $look->query('SELECT pg_terminate_backend(' . $_[0]->backend . ')') },
		ends => 1, mute => 1, status => 'canceled'
	},
	'kill -9' => { strike => sub { kill 'KILL', $_[0]->backend }, ends => 1, mute => 1, restarts => 1, status => 'crashed' });

# Where it is held: what the table "point" says, here or there; how to see those
# who wait; what else holds them. In clean-up they wait twice.
my %points = (
	'before first chunk' => {
		hold => sub { $locker->query('BEGIN; LOCK TABLE staging IN SHARE MODE') },
		waits => q{SELECT count(*) FROM pg_locks WHERE relation = 'staging'::regclass AND NOT granted}
	},
	'mid-chunk' => { at => 'wait', waits => waiters(77) },
	'in commit' => { at => 'commit', waits => q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'} },
	'in commit there' => { at => 'commit', waits => waiters(77), there => 1 },
	'in clean-up' => { at => 'clean', waits => waiters(77), then => waiters(78) });
$points{'in its own commit'} = { %{ $points{'in commit'} }, own => 1 };
# Who asks there, or stores there, is held there, as far as that can be.
my %held_there = ('mid-chunk' => { there => 1 }, 'in clean-up' => { there => 1 });

my $stages = '{"deidentify": 1, "store": 1}';

# What is called, with a place for one more argument, and how many are held
# then; itself: who is held is the caller.
my %topologies = (
	'inline' => { pipeline => 'mood', call => q{SELECT status FROM epro_etl.run('mood', workers => 0%s)}, held => 1, itself => 1 },
	'batch' => { pipeline => 'mood', call => q{SELECT status FROM epro_etl.run('mood', workers => 2%s)}, held => 2 },
	'lookup local, inline' => { pipeline => 'local', call => q{SELECT status FROM epro_etl.run('local', workers => 0%s)}, held => 1, itself => 1, asks => 1 },
	'lookup local, batch' => { pipeline => 'local', call => q{SELECT status FROM epro_etl.run('local', workers => 2%s)}, held => 2, asks => 1 },
	'lookup foreign, inline' => { pipeline => 'foreign', call => q{SELECT status FROM epro_etl.run('foreign', workers => 0%s)}, held => 1, itself => 1, far => 1, asks => 1 },
	'lookup foreign, batch' => { pipeline => 'foreign', call => q{SELECT status FROM epro_etl.run('foreign', workers => 2%s)}, held => 2, far => 1, asks => 1 },
	'sink foreign, inline' => { pipeline => 'far', call => q{SELECT status FROM epro_etl.run('far', workers => 0%s)}, held => 1, itself => 1, far => 1 },
	'sink foreign, batch' => { pipeline => 'far', call => q{SELECT status FROM epro_etl.run('far', workers => 2%s)}, held => 2, far => 1 },
	'stream stop' => {
		pipeline => 'mood', stream => 1,
		call => q{SELECT epro_etl.stop_stream('mood'%s)::text},
		before => sub { $look->query(q{SELECT epro_etl.watch_source('mood')}) },
		prepare => \&begin_to_stop,
		held => 1
	},
	'stream start' => {
		pipeline => 'mood', stream => 1,
		call => qq{SELECT epro_etl.start_stream('mood', '$stages')::text},
		# it waits for the table where it has to make its trigger
		before => sub { $look->query('DROP TRIGGER IF EXISTS epro_etl_wake ON staging') },
		prepare => \&begin_to_start,
		held => 1, itself => 1,
		# the leader looks every now and then whether who starts it is still there
		later => 1
	});

# All of ours that there are, but the launcher; what our login does there.
my $processes = q{SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type IN ('epro_etl worker', 'epro_etl stream', 'epro_etl stage worker')};
my $remote_queries = q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'etl' AND state <> 'idle'};

my $far = create_far('far');
my $node = create_node('matrix', conf => <<'CONF');
shared_preload_libraries = 'epro_etl'
client_connection_check_interval = '50ms'
wal_level = replica
max_wal_senders = 2
synchronous_standby_names = 'nobody'
synchronous_commit = local
autovacuum = off
epro_etl.naptime = '50ms'
CONF
my %count = (cells => 0, impossible => 0, again => 0);

create_tables();
foreach my $cell (cells())
{
	next if @ARGV && !grep { index($cell->{name}, $_) >= 0 } @ARGV;
	one_cell($cell);
}
note("$count{cells} cells, $count{impossible} that cannot be, $count{again} times more time was needed");

$_->close foreach ($look, $locker, $there);
$node->stop('fast');
$far->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal (?!9)/, 'no process crashed');
done_testing();

sub within
{
	my ($call, $time) = @_;
	return "SELECT * FROM epro_etl.with_timeout('$time ms', \$call\$$call\$call\$) AS t (answer text)";
}

# Those who wait for one of the test's two advisory locks.
sub waiters
{
	my ($class) = @_;
	return "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $class AND objsubid = 2 AND NOT granted";
}

# The table as a list.
sub cells
{
	my (@ways, $topology, @cells);

	foreach my $line (split /\n/, $table)
	{
		my ($point, @right) = split /\s*\|\s*/, $line;

		if (@right && $point eq 'way') { @ways = @right; }
		elsif (@right)
		{
			push @cells, map { { name => "$ways[$_] x $topology x $point", way => $ways[$_], topology => $topology, point => $point, right => $right[$_] } } 0 .. $#ways;
		}
		elsif ($line =~ /^(.*?):/) { $topology = $1; }
	}
	return @cells;
}

# Nothing of the cell before is left; the new one's point is held.
sub anew
{
	my ($topology, $point) = @_;
	my $at = $point->{there} ? $there : $look;

	$look->query('SELECT epro_etl.stop_stream(name, drain => false) FROM epro_etl.pipeline JOIN epro_etl.stream USING (pipeline_id)');
	until_true($there, $remote_queries, 0);
	restage($look, 1, ROWS);
	$there->query('TRUNCATE mood_far');
	$topology->{before}->() if $topology->{before};
	foreach my $session ($look, $there)
	{
		$session->query('SELECT pg_advisory_unlock_all(); TRUNCATE point');
		$session->query('SELECT pg_advisory_lock(77, 0), pg_advisory_lock(78, 0)');
	}
	$at->query("INSERT INTO point VALUES ('$point->{at}')") if $point->{at} && !$point->{own};
	$point->{hold}->() if $point->{hold};
	return;
}

# Whoever is held is let go; so is who comes to the point later.
sub let_go
{
	$locker->query('ROLLBACK');
	foreach my $session ($look, $there)
	{
		$session->query('DELETE FROM point; SELECT pg_advisory_unlock_all()');
	}
	return until_true($look, q{SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}, 0);
}

# Waits until so many are held; false when the caller, if there is still one to
# ask, has its answer before, or its time is over.
sub reached
{
	my ($caller, $session, $query, $n, $time) = @_;
	my $end = time() + ($time ? $time / 1000 : $EproTest::PATIENCE);

	while (time() < $end)
	{
		return 1 if $session->query($query) == $n;
		return 0 if $caller && !$caller->busy;
		sleep(0.005);
	}
	return 0;
}

# The server has lost a process and starts again.
sub restarted
{
	my $lost = $look;

	$lost->try('SELECT') until $lost->{over};
	$_->close foreach ($look, $locker);
	connect_here();
	return;
}

sub connect_here
{
	($look, $locker) = (reach($node), reach($node));
	$_->query('SET client_min_messages = error') foreach ($look, $locker);
	return;
}

sub one_cell
{
	my ($cell) = @_;
	my ($way, $topology) = ($ways{ $cell->{way} }, $topologies{ $cell->{topology} });
	my %point = (%{ $points{ $cell->{point} } }, $topology->{far} ? %{ $held_there{ $cell->{point} } || {} } : ());
	my $time = TIME;
	my $right;
	my $got;

	$point{at} = "ask, $point{at}" if $topology->{asks} && $point{waits} eq waiters(77);

	if (my $reason = $reasons{ $cell->{right} })
	{
		note("$cell->{name}: cannot be. $reason");
		$count{impossible}++;
		return;
	}
	$right = right($cell->{right}, $way, $topology, \%point);
	until (($got = try_cell($way, $topology, {%point}, $right, $time, $cell->{right} =~ /soon/))->{held} || $way->{strike} || $time > 2000)
	{
		note("$cell->{name}: $time ms were over too early");
		$count{again}++;
		$time *= 3;
	}
	$count{cells}++;
	is_deeply($got, $right, $cell->{name}) or diag(explain($got));
	return;
}

# What the table's words mean, measure by measure.
sub right
{
	my ($words, $way, $topology, $point) = @_;
	my %right = (
		held => 1, remote => 0, wrong => '', rest => 'all',
		sqlstate => $words =~ /\b(\d\d\w\w\w|EP\w\w\w)\b/ ? $1 : '',
		waits => $words =~ /waits/ ? 1 : 0);

	$right{loaded} = $1 if $words =~ /\b(none|some|all)\b/;
	$right{stream} = $1 if $words =~ /\b(lives|gone)\b/;
	$right{workers} = 0 if $words !~ /lives/;
	# in the caller's transaction, the ledger is undone as well
	$right{status} = $topology->{itself} ? $right{loaded} eq 'all' ? 'succeeded' : '' : $way->{status} if !$topology->{stream};
	# who waits for workers waits to the end, whoever else wants it to go
	$right{stays} = 1 if $point->{then} && !$topology->{itself} && !$topology->{stream} && !$way->{restarts};
	return \%right;
}

# One cell, of which it says what is asked for; only "held => 0" if the point
# was not reached.
sub try_cell
{
	my ($way, $topology, $point, $right, $time, $soon) = @_;
	my %got = (held => 1, waits => 0, rest => '');
	my $argument = $way->{argument} ? $way->{argument}->($time) : '';

	anew($topology, $point);
	my $caller = EproTest::Psql->new($node);
	my $call = $topology->{prepare} && $topology->{prepare}->($caller, $point) || $topology->{call};
	$caller->query('SET synchronous_commit = on') if $point->{own};
	$caller->query($way->{set}->($time)) if $way->{set};
	$call =~ s/%s/$argument/;
	$call = $way->{around}->($call, $time) if $way->{around};
	$caller->send("$call;\nSELECT 'workers ' || ($processes)");

	if (!end_at_point($caller, $way, $topology, $point, $right, $time, \%got))
	{
		let_go();
		$caller->wait;
		$caller->close;
		return { held => 0 };
	}

	# what the caller says, and what is there as soon as it has said it
	my ($out, $error) = $way->{mute} ? ('', '') : eval { $caller->wait };
	if (!defined $out)
	{
		$look->query('SELECT pg_terminate_backend(' . $caller->backend . ')');
		($out, $error) = ('', 'ERROR:  00000: no answer');
	}
	$got{sqlstate} = sqlstate($error);
	if ($way->{restarts}) { restarted(); }
	elsif ($way->{ends}) { until_true($look, 'SELECT count(*) FROM pg_stat_get_activity(' . $caller->backend . ')', 0); }
	$got{remote} = $way->{ends} || $soon ? soon_none($there, $remote_queries) : $there->query($remote_queries);
	$got{workers} = $topology->{later} ? soon_none($look, $processes) : $out =~ /^workers (\d+)/m ? $1 : $look->query($processes) if defined $right->{workers};
	$got{loaded} = loaded() if $right->{loaded};
	$got{status} = status_of($look) if defined $right->{status};
	$got{wrong} = wrong($topology, $right->{stream});

	let_go();
	$caller->close;
	if ($right->{stream})
	{
		my $wanted = $look->query('SELECT count(*) FROM epro_etl.stream');
		$got{stream} = !$wanted ? 'gone' : await_stream($look, q{state = 'running' AND workers = workers_wanted}) ? 'lives' : 'down';
		until_true($look, 'SELECT count(*) FROM staging', 0) if $got{stream} eq 'lives';
		$look->query(q{SELECT epro_etl.stop_stream('mood')});
		$got{rest} = 'processes are left, ' if soon_none($look, $processes);
	}
	$look->query("SELECT epro_etl.run('$topology->{pipeline}', workers => 0)") if !$right->{stream} || $got{stream} eq 'gone';
	$got{rest} .= loaded() . wrong($topology);
	return \%got;
}

# From the call to its end at the point; false when the point was not reached.
sub end_at_point
{
	my ($caller, $way, $topology, $point, $right, $time, $got) = @_;
	my $at = $point->{there} ? $there : $look;
	my $held = $topology->{held};
	my $strike = $way->{strike};

	return 0 if !reached($caller, $at, $point->{waits}, $held, $strike ? 0 : $time);
	if ($point->{then})
	{
		# what is canceled holds on in its clean-up, where the second strike comes
		my $cancel = $ways{cancel}->{strike};
		my $first = $way->{restarts} || $way->{ends} && $topology->{itself} ? $cancel : $strike;
		$first->($caller) if $first;
		return 0 if !reached($first && $first != $cancel ? undef : $caller, $at, $point->{then}, $held);
		until_over($caller, 'query_start', 2 * $time + 50) if $way->{both};
		$strike = $way->{both} ? undef : !$strike ? $cancel : $first == $strike && $way->{again} ? $way->{again} : $strike;
	}
	$strike->($caller) if $strike;
	# a budget's timer cancels again, if what it has canceled goes on
	until_over($caller, 'clock_timestamp()', 60) if $point->{then} && !$way->{strike};

	if ($right->{stays})
	{
		# told again to go, they have not gone, and so the caller has not
		until_true($at, $point->{then}, $held);
		$got->{stays} = $look->query('SELECT count(*) FROM pg_stat_get_activity(' . $caller->backend . ')');
	}
	if ($right->{waits})
	{
		if ($strike) { until_over($caller, 'clock_timestamp()', 200); }
		else { until_over($caller, 'query_start', ($way->{both} ? 2 : 1) * $time + 50); }
		$got->{waits} = $at->query($point->{then} || $point->{waits}) == $held ? 1 : 0;
	}
	# a FATAL ends a wait for a lock here, whoever would catch an error
	let_go() if $right->{waits} ||
	  $point->{then} && !$way->{restarts} && !($way->{ends} && $topology->{itself} && !$point->{there});
	return 1;
}

# Until a time of the caller's, and so many milliseconds, are over.
sub until_over
{
	my ($caller, $from, $time) = @_;
	my $over = $look->query("SELECT $from + interval '$time ms' FROM pg_stat_activity WHERE pid = " . $caller->backend);

	return until_true($look, "SELECT clock_timestamp() > '$over'");
}

# The stream is up, and held at the point; the call is what is to be ended.
sub begin_to_stop
{
	my ($caller, $point) = @_;

	$look->query("SELECT epro_etl.start_stream('mood', '$stages')");
	if ($point->{own})
	{
		until_true($look, 'SELECT count(*) FROM staging', 0);
		return;
	}
	# both groups lock the source
	until_true($look, $point->{waits}, $point->{hold} ? 2 : 1);
	if ($point->{then})
	{
		# this stop begins the clean-up
		$point->{waits} = delete $point->{then};
		return q{SELECT epro_etl.stop_stream('mood', drain => false%s)::text};
	}
	$point->{waits} = "SELECT count(*) FROM epro_etl.stream_status() WHERE state = 'draining' AND ($point->{waits}) > 0";
	return;
}

sub begin_to_start
{
	my ($caller, $point) = @_;

	return q{SELECT start_and_wait()} if $point->{then};
	if (($point->{at} || '') eq 'wait')
	{
		$look->query("SELECT epro_etl.start_stream('mood', '$stages')");
		until_true($look, $point->{waits}, 1);
		$locker->query('BEGIN; UPDATE epro_etl.stream SET queue_size = queue_size');
		$point->{waits} = q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = } . $caller->backend;
	}
	return;
}

# Polled, for what nobody waits for: 0, or what is left after 5 seconds.
sub soon_none
{
	my ($session, $query) = @_;
	my $end = time() + 5;
	my $n;

	while (($n = $session->query($query)) > 0 && time() < $end)
	{
		sleep(0.01);
	}
	return $n;
}

sub loaded
{
	my $n = $look->query('SELECT count(*) FROM mood_sink');
	return $n == 0 ? 'none' : $n == ROWS ? 'all' : 'some';
}

# What the oracle and the ledger say that is not as it should be.
sub wrong
{
	my ($topology, $runs) = @_;
	my $wrong = $look->query(q{SELECT * FROM oracle(ARRAY['staging'], ARRAY['mood_sink']) o WHERE o NOT LIKE '%still going on'} . ($runs ? '' : ' OR true'));

	$wrong .= $look->query('SELECT r FROM epro_etl.run_ledger l, epro_etl.reconcile(l.run_id) r WHERE NOT r.agrees');
	if ($topology->{far} && !$topology->{asks})
	{
		my $is = 'SELECT concat_ws(\' \', count(*), count(DISTINCT source_id), sum(source_id), sum(mood02), sum(length(note))) FROM ';
		my ($here, $over) = ($look->query("$is mood_sink"), $there->query("$is mood_far"));
		$wrong .= "here $here, there $over" if $here ne $over;
	}
	return $wrong;
}

sub create_tables
{
	my ($host, $port) = ($far->host, $far->port);
	my $common = <<'SQL';
CREATE TABLE point (at text);
GRANT SELECT ON point TO PUBLIC;
-- A clean-up that takes its time, and is deaf meanwhile. A second cancel may
-- come before it is: that is for the outer handler.
CREATE FUNCTION deaf() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(78, 0);
            RETURN;
        EXCEPTION WHEN query_canceled THEN
            NULL;
        END;
    END LOOP;
END $$;
CREATE FUNCTION clean_up() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(77, 0);
    EXCEPTION WHEN query_canceled THEN
        PERFORM deaf();
        RAISE;
    END;
EXCEPTION WHEN query_canceled THEN
    PERFORM deaf();
    RAISE;
END $$;
CREATE FUNCTION at_point() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    at text := (SELECT p.at FROM point p);
BEGIN
    IF at = 'wait' THEN
        PERFORM pg_advisory_xact_lock_shared(77, 0);
    ELSIF at = 'clean' THEN
        PERFORM clean_up();
    ELSIF at = 'commit' THEN
        IF TG_ARGV[0] = 'standby' THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        ELSIF TG_ARGV[0] = 'deferred' THEN
            PERFORM pg_advisory_xact_lock_shared(77, 0);
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TABLE enrolled (note text PRIMARY KEY);
INSERT INTO enrolled SELECT 'note of ' || g FROM generate_series(1, 1000) g;
GRANT SELECT ON enrolled TO PUBLIC;
CREATE FUNCTION answers(note text) RETURNS boolean STABLE LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    at text := (SELECT p.at FROM point p);
BEGIN
    IF at = 'ask, wait' THEN
        PERFORM pg_advisory_xact_lock_shared(77, 0);
    ELSIF at = 'ask, clean' THEN
        PERFORM clean_up();
    END IF;
    RETURN true;
END $$;
CREATE VIEW registry AS SELECT note FROM enrolled WHERE answers(note);
SQL

	create_fixture($node, gates => 0);
	$far->safe_psql('postgres', $common . <<'SQL');
DROP TABLE mood_far;
CREATE TABLE mood_far (source_id bigint PRIMARY KEY, subject_key text, mood01 int, mood02 int, note text, run_id bigint);
CREATE TRIGGER at_point BEFORE INSERT ON mood_far FOR EACH ROW EXECUTE FUNCTION at_point();
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON mood_far DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_point('deferred');
CREATE ROLE etl LOGIN;
GRANT SELECT, INSERT ON mood_far TO etl;
GRANT SELECT ON registry TO etl;
SQL
	$node->safe_psql('postgres', $common . <<"SQL");
CREATE TRIGGER at_point BEFORE INSERT ON mood_sink FOR EACH ROW EXECUTE FUNCTION at_point('standby');
CREATE FUNCTION start_and_wait() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
    PERFORM epro_etl.start_stream('mood', '$stages');
    PERFORM clean_up();
    RETURN '';
END \$\$;
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', batch_size '100', options '-c client_connection_check_interval=50ms');
CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'etl');
CREATE FOREIGN TABLE mood_far (source_id bigint, subject_key text, mood01 int, mood02 int, note text, run_id bigint) SERVER far;
SELECT epro_etl.add_context_server('far');
SELECT epro_etl.create_pipeline('far', 'staging', '{"id": "response_id"}');
SELECT epro_etl.add_sink('far', 'MOOD', 'mood_sink');
SELECT epro_etl.add_sink('far', 'MOOD', 'mood_far', on_duplicate => 'ignore');
CREATE FOREIGN TABLE registry_far (note text) SERVER far OPTIONS (table_name 'registry');
SQL
	# a form of its own for each reference, of which the staged rows say nothing
	foreach my $asked ([ 'local', 'registry' ], [ 'foreign', 'registry_far' ])
	{
		my ($name, $registry) = @$asked;
		$node->safe_psql('postgres', <<"SQL");
SELECT epro_etl.register_form('$name', definition) FROM epro_etl.form WHERE name = 'MOOD';
SELECT epro_etl.create_pipeline('$name', 'staging', '{"id": "response_id", "form": {"value": "$name"}}');
SELECT epro_etl.add_sink('$name', '$name', 'mood_sink');
SELECT epro_etl.add_lookup('$name', 'enrolled', 'EXISTS (SELECT FROM public.$registry r WHERE r.note = response.note)', timeout => '1 min');
SQL
	}
	connect_here();
	$there = far_session($far);
	return;
}
