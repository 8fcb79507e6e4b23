# A stream and its outbox, when the other server is away or refuses rows while
# others are on their way: what was found of a sink stays known, and nobody is
# blamed for another.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use RemoteTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $far = create_far('far');
my $node = create_node('here', conf => <<'CONF');
epro_etl.naptime = '100ms'
epro_etl.batch_size = 500
epro_etl.sink_timeout = '1s'
CONF
create_flow($node, $far);
my $look = reach($node);
my $there = far_session($far);
my $not_required = "on_duplicate => 'ignore', required => false";

my @parts = qw(pauses broken_delivery flows_beside);
foreach my $part (@ARGV ? @ARGV : @parts)
{
	note("part $part");
	no strict 'refs';
	&{"main::$part"}();
}

$_->close foreach ($look, $there);
$node->stop('fast');
$far->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/, 'no process crashed');
done_testing();

# How often the log says, since an offset, that a sink is away, by pause.
sub pauses_since
{
	my ($offset) = @_;
	my $log = log_since($node, $offset);
	my %pauses;

	$pauses{$1}++ while $log =~ /is away \(SQLSTATE \w+\), and is tried again in (\d+) ms/g;
	return \%pauses;
}

# Each worker that stores leaves a sink alone that it has found away, longer
# each time, though what it stores meanwhile is committed.
sub pauses
{
	flow_anew($look, $there, $not_required);
	$there->query('ALTER TABLE mood_far RENAME TO mood_moved');
	my $offset = -s $node->logfile;
	begin_stream($look, '{"store": 3}');
	foreach my $n (0 .. 23)
	{
		put($look, $n * 10 + 1, $n * 10 + 10, '{"severity": 3}');
		sleep(0.1);
	}
	ok(until_true($look, 'SELECT count(*) FROM staging', 0), 'pauses: all has left');
	my $pauses = pauses_since($offset);
	cmp_ok($pauses->{1000} || 0, '<=', 3, 'pauses: a worker begins anew but once') or diag(explain($pauses));
	$there->query('ALTER TABLE mood_moved RENAME TO mood_far');
	ok(settled($look), 'pauses: all arrives');
	end_stream($look, 'pauses');
	sinks_ok($look, 'pauses');
	return;
}

# The connection breaks in the middle of a delivery: that is not the stream's end.
sub broken_delivery
{
	flow_anew($look, $there, $not_required);
	$there->query('ALTER TABLE mood_far RENAME TO mood_moved');
	put($look, 1, 100, '{"severity": 3}');
	begin_stream($look, '{"store": 1}');
	ok(until_true($look, 'SELECT count(*) FROM staging', 0), 'broken delivery: all has left');
	$there->query(q{CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'});
	$there->query('CREATE TRIGGER die BEFORE INSERT ON mood_moved FOR EACH ROW EXECUTE FUNCTION die()');
	my $offset = -s $node->logfile;
	$there->query('ALTER TABLE mood_moved RENAME TO mood_far');
	my $end = time() + $EproTest::PATIENCE;
	sleep(0.1) until pauses_since($offset)->{4000} || time() > $end;
	ok(pauses_since($offset)->{4000}, 'broken delivery: the pause doubles') or diag(log_since($node, $offset));
	is(flow_shows($look, 'state, failures, generations'), 'running|0|1', 'broken delivery: the stream goes on');
	$there->query('DROP TRIGGER die ON mood_far');
	ok(settled($look), 'broken delivery: all arrives');
	end_stream($look, 'broken delivery');
	sinks_ok($look, 'broken delivery');
	return;
}

# A long outbox does not keep the one worker that stores from the flow.
sub flows_beside
{
	flow_anew($look, $there, $not_required);
	# some hundreds of steps, and a server that takes its time for each
	$look->query(q{INSERT INTO epro_etl.outbox (sink_id, source_id, "row", since)
		SELECT sink_id, g, jsonb_build_object('source_id', g, 'subject_key', 'x', 'severity', 3), now()
		FROM epro_etl.sink, generate_series(100001, 130000) g WHERE target = 'mood_far'::regclass});
	$there->query(q{CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END'});
	$there->query('CREATE TRIGGER slow AFTER INSERT ON mood_far FOR EACH STATEMENT EXECUTE FUNCTION slow()');
	begin_stream($look, '{"store": 1}');
	ok(until_true($look, 'SELECT count(*) < 30000 FROM epro_etl.outbox'), 'flows beside: the outbox is being emptied');
	put($look, 1, 50, '{"severity": 0}');
	ok(until_true($look, 'SELECT count(*) FROM staging', 0), 'flows beside: all has left');
	cmp_ok($look->query('SELECT count(*) FROM epro_etl.outbox'), '>', 20000, 'flows beside: long before the outbox is empty');
	# nor does the end of the stream wait for it
	end_stream($look, 'flows beside');
	cmp_ok($look->query('SELECT count(*) FROM epro_etl.outbox'), '>', 15000, 'flows beside: the stream ends before');
	$there->query('DROP TRIGGER slow ON mood_far');
	$look->query(q{DELETE FROM epro_etl.outbox});
	$there->query('DELETE FROM mood_far WHERE source_id > 100000');
	sinks_ok($look, 'flows beside');
	return;
}
