# Every named point of the code (src/effects/point.h): an error is raised there,
# at its first and at its second hit, and a process is held there and terminated,
# with a run in the caller's session, with one worker, with two, and in a stream.
# After each, no process, lock, segment or memory is left, the oracle finds each
# response in one place, and the next run does the rest.  In clean-up that may not
# raise errors, a process is held, terminated and killed.
#
# The points are found in the sources; one that was never made to do anything is a
# failure, so a new point needs a way to it: by itself, or in %ways below.  So is
# one that a good run has passed, and that nobody comes to when it is ordered.
# What is not tried for want of a second hit is listed at the end.
#
# A build with points is no release build: test/points.sh makes one, and says
# EPRO_POINTS=1.  Without it, the test only looks that the library has none.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use PostgreSQL::Test::Utils;
use RemoteTest;
use Test::More;
use Time::HiRes qw(sleep time);

use constant ROWS => 60;

my $sources = "$FindBin::RealBin/../../src";
plan skip_all => 'the sources are not beside the tests' unless -d $sources;

# name => may it only wait?
my %points;
foreach my $file (glob "$sources/*/*.c")
{
	my $text = slurp_file($file);

	while ($text =~ /\bPOINT(_CALM)?\("([^"]+)"\)/g)
	{
		die "point $2 is there twice\n" if exists $points{$2};
		$points{$2} = defined $1;
	}
}
cmp_ok(scalar keys %points, '>', 50, 'points are found in the sources');

my ($library) = split /\n/, (run_command([ 'pg_config', '--pkglibdir' ]))[0];
my $compiled = slurp_file("$library/epro_etl.so");
my @there = grep { index($compiled, "$_\0") >= 0 } ('epro_etl_points', sort keys %points);
unless ($ENV{EPRO_POINTS})
{
	is("@there", '', 'a release build has none of them');
	done_testing();
	exit;
}
is(scalar @there, 1 + keys %points, 'the build has all of them');

# How often a point is hit before it raises its error.
my $turns = $ENV{EPRO_POINTS_TURNS} || 2;
# These alone, if given; then none is missed.
my @only = split /,/, $ENV{EPRO_POINTS_ONLY} // '';

# Ways to points that no good run passes: errors ordered beforehand.
my %ways = (
	'session.again' => { 'chunk.accounted.error' => '40P01' },
	'chunk.rethrow' => { 'chunk.claimed.error' => 'EP999' },
	'lookup.settle' => { 'lookup.ask.error' => '08006' },
	'conflicts.absorb' => { 'conflicts.look.error' => '23505' },
	'codes.absorb' => { 'codes.collect.error' => '22023' },
	'worker.report' => { 'chunk.claimed.error' => 'EP999' },
	'run.stop' => { 'chunk.claimed.error' => 'EP999' },
	'stage.report' => { 'chunk.claimed.error' => 'EP999' },
	'channel.gone' => { 'chunk.claimed.error' => 'EP999' },
);

my $node = create_node('points', conf => <<'CONF');
shared_preload_libraries = 'epro_etl'
dynamic_shared_memory_type = mmap
fsync = off
autovacuum = off
epro_etl.naptime = '50ms'
epro_etl.sink_timeout = '3s'
epro_etl.batch_size = 20
CONF
my $folder = $node->data_dir . '/epro_etl_points';
mkdir $folder or die "could not make $folder: $!";
create_fixture($node, gates => 0);
my $look = reach($node);
my $caller = reach($node);
$look->query(<<'SQL');
ALTER TABLE staging SET (fillfactor = 20);
-- some raise an error in an edit check, some are refused by a sink, some meet a
-- key, some are the latest of theirs, in each chunk, whichever chunk comes first
CREATE FUNCTION stage_points(first int, last int) RETURNS void LANGUAGE sql AS $$
    WITH made AS (
        INSERT INTO staging
        SELECT g, 'ST01', 'MOOD', 'S-' || (g % 7), 'V' || (g % 2), '2026-01-01 08:00+00'::timestamptz + g * interval '1 minute',
               jsonb_build_object('mood01', g % 4, 'mood02', g % 3, 'note', 'note of ' || CASE g % 10 WHEN 9 THEN g - 1 ELSE g END)
        FROM generate_series(first, last) g
        RETURNING response_id, payload)
    INSERT INTO put_in (response_id, payload) SELECT response_id, payload FROM made;
    INSERT INTO epro_etl.requeued SELECT 'mood', g::text, now(), 1 FROM generate_series(first, last, 7) g;
$$;
CREATE TABLE known AS SELECT g AS id FROM generate_series(0, 2) g;
ALTER TABLE mood_sink ADD UNIQUE (note), ADD CHECK (mood01 <> 1 OR mood02 <> 2);
CREATE TABLE mood_latest (subject_key text, visit text, authored timestamptz, mood01 int, source_id bigint, run_id bigint, UNIQUE (subject_key, visit));
SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_latest', on_duplicate => 'latest');
SELECT epro_etl.set_deid('MOOD', 'subject', 'pseudonymize');
SELECT epro_etl.add_edit_check('MOOD', 'inverse', '1 / (mood01 + mood02) >= 0');

CREATE FUNCTION wrong() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT * FROM oracle(ARRAY['staging'], ARRAY['mood_sink'])
    UNION ALL
    SELECT format('run %s: %s: the ledger says %s, the relations %s', h.run_id, r.measure, r.ledger, r.relations)
    FROM epro_etl.run_history h, LATERAL epro_etl.reconcile(h.run_id) r WHERE r.agrees IS FALSE
    UNION ALL
    SELECT format('response %s is in one sink, and not in the other', id)
    FROM (SELECT source_id AS id FROM mood_sink) a
    FULL JOIN (SELECT source_id AS id FROM mood_latest UNION SELECT earlier_source_id::bigint FROM epro_etl.superseded) b USING (id)
    WHERE a.id IS NULL OR b.id IS NULL
    UNION ALL
    SELECT format('run %s has succeeded, left %s and deferred %s; %s are staged', h.run_id, h.remaining, h.deferred, s.n)
    FROM epro_etl.run_history h, (SELECT count(*) AS n FROM staging) s
    WHERE h.run_id = (SELECT max(run_id) FROM epro_etl.run_ledger) AND h.status = 'succeeded' AND NOT h.stream AND h.remaining + h.deferred <> s.n
    UNION ALL
    SELECT format('process %s holds an advisory lock', pid) FROM pg_locks WHERE locktype = 'advisory'
    UNION ALL
    SELECT format('run %s is in a live view', run_id) FROM epro_etl.stat_progress;
$$;
SQL

my %forced;						# points that were made to do something
my %deed;						# what to do with who waits at a point
my @missed;						# cases that nobody came to
my %count;
my $caller_ended = 0;				# the session of the last call did not live to its end
my $outlived = 0;					# workers that were there after the last call
my $case = 'setting up';		# the one at hand; undef when all is done

# Whatever ends the program early: what, which only the log would have, and where.
my $died = '';
$SIG{__DIE__} = sub { $died = $_[0] unless $^S };
END
{
	diag("ended in case: $case\n$died" . 'ordered: ' . join ' ', map { s{.*/}{}r } there("$folder/*.{error,wait,waiting}.[0-9]*")) if defined $case;
}

# A good run of each way says how many segments there are when none is in use.
my %modes = (
	inline => { workers => 0, on_timeout => 'reject' },
	one => { workers => 1, on_timeout => 'reject' },
	two => { workers => 2, on_timeout => 'defer' },
	thresholds => { workers => 2, on_timeout => 'warn' },
	stream => { stages => '{"decode": 1, "validate": 1, "store": 2}', on_timeout => 'defer' },
	far => { stages => '{"decode": 1, "store": 1}', on_timeout => 'warn' });
my $segments;

foreach my $mode (qw(inline one two thresholds stream))
{
	sweep($mode);
}
held_in_cleanup();
late_inline();
trial();
changed();
renamed();
remote();
launcher();

unless (@only)
{
	is(join(', ', grep { !$forced{$_} } sort keys %points), '', 'every point was made to do something');
}
diag('cases: ' . join ', ', map { "$_ $count{$_}" } sort keys %count);
note('nobody came to: ' . join '; ', @missed);
$case = 'stopping';
$_->close foreach ($look, $caller);
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal (?!9)/, 'no process crashed by itself');
undef $case;
done_testing();

# ---- the sweep ----

sub sweep
{
	my ($mode) = @_;
	my ($memory, %passed, %names);

	$case = "$mode, without any order";
	setting($mode);
	anew();
	rmdir $_ foreach there("$folder/*.reached");
	go($mode);
	$segments = segments() unless defined $segments;
	ok_now($mode, 'without any order');
	# one with a way of its own may have been passed by chance
	%passed = map { m{/([^/]+)\.reached$} ? ($1 => 1) : () } there("$folder/*.reached");
	%names = map { $_ => 1 } grep { !$points{$_} } keys %passed, keys %ways;
	my @names = sort keys %names;

	@names = grep { my $name = $_; grep { $_ eq $name } @only } @names if @only;
	# what only a run that is held up by thresholds passes
	@names = grep { !$forced{$_} } @names if $mode eq 'thresholds';
	$memory = top_memory();
	foreach my $name (@names)
	{
		my $try = sub {
			my ($what, $orders, $may_miss) = @_;
			my $tried = one_case($mode, "$what at $name", $name, $orders);

			fail("$mode, $what at $name: somebody gets there") unless $tried || $may_miss;
			return $tried;
		};
		my $way = $ways{$name} || {};

		# a way leads there in some modes only
		$try->('error 1', { %$way, "$name.error.1" => 'EP999' }, !$passed{$name}) or next;
		foreach my $turn (2 .. ($modes{$mode}{stages} ? 1 : $turns))
		{
			$try->("error $turn", { %$way, "$name.error.$turn" => 'EP999' }, 1) or last;
		}
		# a full disk, where one is written to
		$try->('disk full', { "$name.error.1" => '53100' })
		  if $name =~ /^(claim\.chunk|claim\.addressed|codes\.made|sink\.direct|account\.found|account\.quarantine|session\.commit)$/ && $mode =~ /^(two|stream)$/;
		# what a chunk meets that is then done again
		$try->('deadlock', { "$name.error.1" => '40P01' }) if $name =~ /^(chunk\.accounted|chunk\.stored|session\.commit)$/;
		# as a worker, and once more where a stream is another process
		next if $mode eq 'inline' || $mode eq 'one' || ($mode eq 'stream' && $name !~ /^(channel|claim|generation|leader|reader|stage)/);
		$deed{$name} = 'terminate';
		$try->('terminated', { %$way, "$name.wait.1" => 1 });
		next unless $name =~ /^(chunk\.stored|session\.commit|session\.committed|channel\.received|channel\.send|stage\.settle|account\.found|run\.wait)$/;
		$deed{$name} = 'kill';
		$try->('killed', { "$name.wait.1" => 1 });
	}
	cmp_ok(top_memory() - $memory, '<', 100_000, "$mode: the session keeps no memory") if $mode eq 'inline';
	return;
}

# One order more, a run under it, the next run without; true if the order was
# carried out.
sub one_case
{
	my ($mode, $what, $name, $orders) = @_;

	$case = "$mode, $what";
	anew();
	order($orders);
	go($mode);
	if (there("$folder/$name.{error,wait}.*"))
	{
		push @missed, $case;
		clear();
		return 0;
	}
	$forced{$name}++;
	$count{ (split / /, $what)[0] }++;
	ok_now($mode, $what);
	clear();
	# a stream has gone on by itself
	return 1 if $modes{$mode}{stages};
	go($mode);
	my $left = $look->query('SELECT count(*) FROM staging');
	is($left, 0, "$mode, $what: the next run does the rest");
	return ok_now($mode, "$what, and the next run");
}

sub ok_now
{
	my ($mode, $what) = @_;

	my $wrong = join "\n", wrong();

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($wrong, '', "$mode, $what: nothing is left or lost");
	if ($wrong ne '')
	{
		# what is left is not to be found again after each of the next
		$caller->close;
		$caller = reach($node);
		$segments = segments();
	}
	return 1;
}

sub wrong
{
	my @wrong = split /\n/, $look->query('SELECT * FROM wrong()');

	push @wrong, map { "$_ is still there" } split /\n/,
	  $look->query(q{SELECT backend_type FROM pg_stat_get_activity(NULL) WHERE backend_type IN ('epro_etl worker', 'epro_etl stream', 'epro_etl stage worker')});
	push @wrong, "$outlived workers outlived the call" if $outlived;
	$outlived = 0;
	push @wrong, 'there are ' . segments() . " segments, and not $segments" if segments() > $segments;
	push @wrong, split /\n/, $caller->query(q{SELECT 'a memory context is left: ' || name FROM pg_backend_memory_contexts
		WHERE name LIKE 'epro\_etl%' AND name NOT IN ('epro_etl lookups', 'epro_etl answers', 'epro_etl circuits')});
	return @wrong;
}

sub segments
{
	return scalar there($node->data_dir . '/pg_dynshmem/mmap.*');
}

sub top_memory
{
	return $caller->query(q{SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopMemoryContext'});
}

sub anew
{
	$look->query('TRUNCATE staging, mood_sink, mood_latest, put_in, epro_etl.quarantine, epro_etl.finding, epro_etl.superseded,'
		  . ' epro_etl.run_worker, epro_etl.run_ledger, epro_etl.requeued, epro_etl.pseudonym, epro_etl.outbox; SELECT stage_points(1, ' . ROWS . ')');
	return;
}

sub setting
{
	my ($mode) = @_;
	my $policy = $modes{$mode}{on_timeout};

	$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'known') FROM epro_etl.edit_check WHERE check_name = 'known' AND removed_at IS NULL});
	$look->query(qq{SELECT epro_etl.add_lookup('MOOD', 'known', 'EXISTS (SELECT FROM public.known k WHERE k.id = mood02)', on_timeout => '$policy', timeout => '30 s')});
	$look->query(q{SELECT epro_etl.remove_edit_check('MOOD', 'never') FROM epro_etl.batch_threshold WHERE check_name = 'never' AND removed_at IS NULL});
	$look->query(q{SELECT epro_etl.add_check('MOOD', 'never', 'batch_threshold', '{"rule": "/mood01/maximum", "max_ratio": 0.99}')}) if $mode eq 'thresholds';
	return;
}

# ---- orders ----

# What there is by this pattern.  glob() itself, where one value is asked for, goes
# on with what it found the call before.
sub there
{
	my ($pattern) = @_;
	my @there = glob $pattern;
	return @there;
}

# { "point.action" or "point.action.turn" => what the link says }
sub order
{
	my ($orders) = @_;

	foreach my $order (sort keys %$orders)
	{
		my $path = "$folder/$order" . ($order =~ /\.\d$/ ? '' : '.1');
		symlink $orders->{$order}, $path or die "could not make $path: $!";
	}
	return;
}

sub clear
{
	foreach my $path (there("$folder/*"))
	{
		if (-l $path) { unlink $path }
		elsif ($path =~ /waiting/) { rmdir $path }
	}
	return;
}

# Does to who waits what is to be done.
sub tick
{
	foreach my $path (there("$folder/*.waiting.*"))
	{
		my ($name, $pid) = $path =~ m{/([^/]+)\.waiting\.(\d+)$} or next;
		my $deed = $deed{$name} || 'release';

		if (ref $deed)
		{
			$deed->($pid);
		}
		elsif ($deed eq 'terminate')
		{
			kill 'TERM', $pid;
			$caller->{terminated} = 1 if $pid == $caller->backend;
			gone($pid) unless $points{$name};
		}
		elsif ($deed eq 'kill')
		{
			# who is gone already brings nothing down
			if (kill 'KILL', $pid)
			{
				await_back($node);
				back();
			}
		}
		rmdir $path;
	}
	return;
}

# Waits a while for a process to end.
sub gone
{
	my ($pid) = @_;
	my $end = time() + 2;

	# on its way out it may meet another point
	sleep(0.005) while time() < $end && kill(0, $pid) && there("$folder/*.waiting.$pid") < 2;
	return;
}

# Sessions after a crash.
sub back
{
	$_->close foreach ($look, $caller);
	$look = reach($node);
	$caller = reach($node);
	return;
}

# ---- a run, with what is ordered done meanwhile ----

sub await
{
	my ($what, $condition) = @_;
	my $end = time() + $EproTest::PATIENCE;

	while (time() < $end)
	{
		tick();
		return 1 if $condition->();
		sleep(0.005);
	}
	diag("waited in vain: $what\n" . $look->query('SELECT pid, backend_type, wait_event_type, wait_event, left(query, 60) FROM pg_stat_activity WHERE pid <> pg_backend_pid()')
		  . "\n" . $look->query('TABLE epro_etl.stat_stream') . "\n" . join "\n", there("$folder/*.{error,wait,waiting}.[0-9]*"));
	fail($what);
	return 0;
}

# In the caller's session; the SQLSTATE, if it fails.
sub call
{
	my ($sql) = @_;

	$caller_ended = 0;
	$caller->send($sql);
	await("answer of: $sql", sub { !$caller->busy }) or die "no answer of: $sql\n";
	my ($out, $error) = $caller->{over} ? ('', '') : $caller->wait;
	# who is terminated in clean-up may answer first, and say so later, or never
	if ($caller->{over} || $caller->{terminated} || $error =~ /FATAL:|connection/)
	{
		my $pid = $caller->backend;

		$caller_ended = 1;
		await('the session ends', sub { !kill 0, $pid }) if $caller->{terminated};
		$caller->close;
		$caller = reach($node);
	}
	return sqlstate($error);
}

sub go
{
	my ($mode, %args) = @_;
	my $how = $modes{$mode};
	my $more = $args{more} || '';

	unless ($how->{stages})
	{
		my $state = call("SELECT status FROM epro_etl.run('mood', workers => $how->{workers}$more)");
		# no worker outlives the call; only whoever ended the caller did not wait for them
		$outlived = $caller_ended ? 0 : survivors($look);
		await('workers end', sub { survivors($look) == 0 });
		return $state;
	}
	stream_goes_on($mode);
	await('the stream empties staging', sub {
		stream_goes_on($mode);
		$look->query('SELECT (SELECT count(*) FROM staging) + (SELECT count(*) FROM epro_etl.outbox WHERE refused IS NULL)') == 0; });
	# The idle stream, too, passes points: it looks whether it is what it is to be.
	# After an error there it goes on, and looks once more.
	my $mark = "$folder/generation.plan.reached";
	my $looked = 0;
	rmdir $mark;
	await('the stream looks at its plan, twice', sub {
		stream_goes_on($mode);
		$looked ||= rmdir $mark;
		$looked && -d $mark; });
	await('the stream is stopped', sub {
		call("SELECT epro_etl.stop_stream('mood')");
		stream_shows($look, 'state') eq ''; });
	await('the stream ends', sub { stream_processes($look) == 0 });
	return;
}

# An error may have kept it from being wanted at all.
sub stream_goes_on
{
	my ($mode) = @_;

	call("SELECT epro_etl.start_stream('mood', '$modes{$mode}{stages}')") if stream_shows($look, 'state') =~ /^(not running|)$/;
	return;
}

# ---- clean-up that may not raise errors ----

# Who gets there is held, and let go on, terminated, or killed.
sub held_in_cleanup
{
	my %lead = (
		'worker.report' => [ 'two', { 'chunk.claimed.error' => 'EP999' } ],
		'run.stop' => [ 'two', { 'chunk.claimed.error' => 'EP999' } ],
		'worker.exit' => [ 'two', { 'chunk.claimed.wait' => 1 }, 'chunk.claimed' ],
		'run.exit' => [ 'two', { 'run.wait.wait' => 1 }, 'run.wait' ],
		'stage.report' => [ 'stream', { 'chunk.claimed.error' => 'EP999' } ],
		'stage.exit' => [ 'stream', { 'chunk.claimed.wait' => 1 }, 'chunk.claimed' ],
		'channel.gone' => [ 'stream', { 'chunk.claimed.error' => 'EP999' } ],
		'channel.detach' => [ 'stream', { } ],
		'generation.end' => [ 'stream', { 'chunk.claimed.error' => 'EP999' } ],
		'leader.exit' => [ 'stream', { 'generation.lead.wait' => 1 }, 'generation.lead' ]);

	foreach my $name (sort keys %lead)
	{
		my ($mode, $orders, $terminated) = @{ $lead{$name} };

		next if @only && !grep { $_ eq $name } @only;
		setting($mode);
		foreach my $deed (qw(release terminate kill))
		{
			%deed = ($name => $deed);
			$deed{$terminated} = 'terminate' if $terminated;
			ok(one_case($mode, "held at $name: $deed", $name, { %$orders, "$name.wait.1" => 1 }), "$mode: somebody gets to $name");
		}
	}
	%deed = ();
	return;
}

# ---- ways of their own ----

sub wanted
{
	return !@only || grep { my $name = $_; grep { $_ eq $name } @only } @_;
}

# The clean-up of a run in the caller's session that is over its time.
sub late_inline
{
	return unless wanted('inline.late');
	$case = 'inline, error at inline.late';
	setting('inline');
	anew();
	%deed = ('chunk.claimed' => sub { sleep(0.1) });
	order({ 'chunk.claimed.wait' => 1, 'inline.late.error' => 'EP999' });
	is(go('inline', more => ", timeout => '50 ms'"), 'EP999', 'inline.late: the error of the clean-up arrives');
	$forced{'inline.late'}++;
	ok_now('inline', 'error at inline.late');
	%deed = ();
	clear();
	is(call('SELECT pg_sleep(0.1)'), '', 'inline.late: no time of the run is left in the session');
	is(go('inline'), '', 'inline.late: the next run is done');
	return ok_now('inline', 'error at inline.late, and the next run');
}

# Who tries out a form.
sub trial
{
	my $try = q{SELECT count(*) FROM epro_etl.validate('MOOD', '{"mood01": 1, "mood02": 1}')};

	return unless wanted('trial.absorb');
	$case = 'inline, error at trial.absorb';
	anew();
	order({ 'lookup.ask.error' => 'EP999', 'trial.absorb.error' => 'EP998' });
	is(call($try), 'EP998', 'trial.absorb: the error of the clean-up arrives');
	$forced{'trial.absorb'}++;
	clear();
	is(call($try), '', 'trial.absorb: the next one is answered');
	go('inline');
	return ok_now('inline', 'error at trial.absorb');
}

# A sink changes between two chunks, and compiling it again fails.
sub changed
{
	my $filled = 90;

	return unless wanted('pipeline.refreshed');
	setting('one');
	%deed = ('session.committed' => sub { $filled--; $look->query("ALTER TABLE mood_sink SET (fillfactor = $filled)") });
	ok(one_case('one', 'error 1 at pipeline.refreshed', 'pipeline.refreshed', { 'session.committed.wait' => 1, 'pipeline.refreshed.error' => 'EP999' }),
		'a run compiles again');
	%deed = ();
	return;
}

# A column gets another name after a run has read which there were and before it
# opens the sink: the run must not go on without that column.
sub renamed
{
	return unless wanted('pipeline.sink');
	setting('inline');
	$case = 'inline, a column renamed at pipeline.sink';
	anew();
	# columns that are mapped are missed anyhow: these are found by their names
	$look->query(q{CREATE TABLE by_name (source_id bigint, mood01 int, note text); SELECT epro_etl.add_sink('mood', 'MOOD', 'by_name')});
	%deed = ('pipeline.sink' => sub { $look->query('ALTER TABLE by_name RENAME COLUMN note TO remark') });
	order({ 'pipeline.sink.wait' => 1 });
	is(go('inline'), 'EP006', 'a column renamed while a run begins: refused');
	ok(!there("$folder/pipeline.sink.wait.*"), 'a column renamed while a run begins: it was');
	%deed = ();
	clear();
	$look->query('ALTER TABLE by_name RENAME COLUMN remark TO note');
	is(go('inline'), '', 'a column renamed while a run begins, and back: loaded');
	is($look->query('SELECT count(*) > 0 AND count(*) = count(note) FROM by_name'), 't', 'a column renamed while a run begins: no answer is lost');
	$look->query(q{SELECT epro_etl.remove_sink('mood', 'MOOD', 'by_name'); DROP TABLE by_name});
	return ok_now('inline', 'a column renamed while a run begins');
}

# A sink on another server, which is away when it is sent to first: the outbox, and
# holding.  It is not a point that is away, since other sinks may come to that.
sub remote
{
	my %ways = (
		'keep.without' => {},
		'outbox.put' => {},
		'outbox.taken' => {},
		'outbox.insert' => {},
		'outbox.absorb' => { 'outbox.insert.error.1' => '23514' },
		'outbox.refuse' => { 'outbox.insert.error.1' => '23514', 'outbox.insert.error.2' => '23514' },
		'deliver.absorb' => { 'outbox.taken.error.1' => 'EP999' },
		'session.delivered' => {},
		'keep.hold' => {});
	my ($host, $port) = ($node->host, $node->port);

	return unless wanted(keys %ways);
	$case = 'far, setting up';
	$look->query('CREATE DATABASE far');
	$node->safe_psql('far', <<'SQL');
CREATE TABLE mood_far (source_id bigint PRIMARY KEY, mood01 int, note text, run_id bigint);
-- what counts has to outlive a rollback
CREATE SEQUENCE times;
CREATE FUNCTION away_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.times') = 1 THEN
        RAISE connection_failure USING MESSAGE = 'away';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER away_once BEFORE INSERT ON mood_far FOR EACH ROW EXECUTE FUNCTION away_once();
SQL
	$look->query(<<"SQL");
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'far');
CREATE USER MAPPING FOR CURRENT_USER SERVER far;
CREATE FOREIGN TABLE mood_far (source_id bigint, mood01 int, note text, run_id bigint) SERVER far OPTIONS (table_name 'mood_far');
SQL
	setting('far');
	foreach my $name (sort keys %ways)
	{
		my $required = $name eq 'keep.hold' ? 'true' : 'false';

		next unless wanted($name);
		$case = "far, on the way to $name";
		$node->safe_psql('far', 'TRUNCATE mood_far; ALTER SEQUENCE times RESTART');
		$look->query(q{SELECT epro_etl.remove_sink('mood', 'MOOD', 'mood_far') FROM epro_etl.sink WHERE target = 'mood_far'::regclass});
		$look->query(qq{SELECT epro_etl.add_sink('mood', 'MOOD', 'mood_far', condition => 'mood01 >= 2', on_duplicate => 'ignore', required => $required)});
		ok(one_case('far', "error 1 at $name", $name, { %{ $ways{$name} }, "$name.error.1" => 'EP999' }), "far: somebody gets to $name");
		is($look->query(q{SELECT s.source_id FROM mood_sink s FULL JOIN (SELECT source_id FROM mood_far UNION ALL SELECT ("row"->>'source_id')::bigint FROM epro_etl.outbox) f USING (source_id)
			WHERE s.mood01 >= 2 AND f.source_id IS NULL OR s.source_id IS NULL}), '', "far, $name: all that is for the other server is there, or waits to be");
	}
	$look->query(q{SELECT epro_etl.remove_sink('mood', 'MOOD', 'mood_far')});
	return;
}

# Who starts streams when the server starts, and again when they are down.
sub launcher
{
	return unless wanted('launcher.start', 'launcher.exit', 'starter.enter');
	$case = 'stream, error at starter.enter';
	setting('stream');

	# a starter that fails: the streams of its database are not up
	anew();
	stream_goes_on('stream');
	await('the stream empties staging', sub { $look->query('SELECT count(*) FROM staging') == 0 });
	order({ 'starter.enter.error' => 'EP999' });
	$node->restart;
	back();
	await('a starter fails', sub { !there("$folder/starter.enter.error.*") });
	$forced{'starter.enter'}++;
	$look->query('SELECT stage_points(' . (ROWS + 1) . ', ' . 2 * ROWS . ')');
	go('stream');
	ok_now('stream', 'error at starter.enter');

	# the launcher itself fails, and comes again
	foreach my $how (qw(error release kill))
	{
		my $name = $how eq 'error' ? 'launcher.start' : 'launcher.exit';

		$case = "stream, $how at $name";
		anew();
		stream_goes_on('stream');
		await('the stream empties staging', sub { $look->query('SELECT count(*) FROM staging') == 0 });
		my $launcher = launcher_pid();
		%deed = ($name => $how);
		order({ $how eq 'error' ? ("$name.error" => 'EP999') : ("$name.wait" => 1) });
		$how eq 'error' ? kill 'TERM', stream_pid($look) : kill 'TERM', $launcher;
		await("somebody gets to $name", sub { !there("$folder/$name.{error,wait,waiting}.*") });
		$forced{$name}++;
		await('there is another launcher', sub { my $pid = launcher_pid(); $pid ne '' && $pid ne $launcher });
		$look->query('SELECT stage_points(' . (ROWS + 1) . ', ' . 2 * ROWS . ')');
		go('stream');
		ok_now('stream', "$how at $name");
		clear();
	}
	%deed = ();
	return;
}

sub launcher_pid
{
	return $look->query(q{SELECT coalesce(min(pid)::text, '') FROM pg_stat_get_activity(NULL) WHERE backend_type = 'epro_etl launcher'});
}
