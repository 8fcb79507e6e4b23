# Processes that are killed outright, and a server that is: the run has
# crashed, nothing is lost and nothing is twice, and the next run does the rest.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

my $node = create_node('kill');
create_fixture($node);

# What happens while two workers stand in chunks, or one does.
killed('kill -9 of a worker in its first chunk', [25], sub { kill 'KILL', worker($_[0]) });
killed('kill -9 of a worker mid-chunk', [225], sub { kill 'KILL', worker($_[0]) });
killed('kill -9 of one of two workers', [ 30, 570 ], sub { kill 'KILL', worker($_[0]) });
killed('kill -9 of the caller', [225], sub { kill 'KILL', $_[1]->backend });
killed('kill -9 of the caller of two workers', [ 30, 570 ], sub { kill 'KILL', $_[1]->backend });
killed('immediate shutdown', [225], sub { $node->stop('immediate') }, 1);
killed('immediate shutdown with two workers', [ 30, 570 ], sub { $node->stop('immediate') }, 1);
killed('fast shutdown', [ 30, 570 ], sub { $node->stop('fast') }, 1, qr/^(?:canceled|failed)$/);
killed_while_opening();

$node->stop('fast');
done_testing();

sub worker
{
	my ($look) = @_;
	return $look->query(q{SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'});
}

sub killed
{
	my ($name, $gates, $how, $is_stopped, $status) = @_;
	my $look = observer($node);
	my $workers = scalar @$gates;

	restage($look, 1, 600, 7);
	close_gate($look, $_) foreach @$gates;
	my $caller = EproTest::Psql->new($node);
	$caller->send("SELECT * FROM epro_etl.run('mood', workers => $workers)");
	ok(await_gate($look, $workers), "$name: the workers are in chunks");
	my $run = $look->query('SELECT max(run_id) FROM epro_etl.run_ledger');
	my $claimed = status_of($look, 'claimed');
	$how->($look, $caller);
	my ($out, $error) = $caller->wait;
	is($out, '', "$name: the caller gets no row");
	if ($is_stopped)
	{
		$node->start;
	}
	else
	{
		# the server restarts by itself
		await_back($node);
	}
	$_->close foreach ($look, $caller);

	$look = observer($node);
	is(survivors($look), 0, "$name: no worker survived");
	like(status_of($look), $status || qr/^crashed$/, "$name: status");
	is(status_of($look, 'claimed'), $claimed, "$name: the ledger holds what was committed");
	is($look->query('SELECT count(*) FROM staging'), 600 - $claimed, "$name: the rest is in staging");
	is($look->query('SELECT count(*) FROM epro_etl.stat_progress'), 0, "$name: nothing in stat_progress");
	oracle_ok($look, $name);
	$look->query('DELETE FROM gate');
	is($look->query("SELECT status FROM epro_etl.wait_run($run)"), status_of($look), "$name: wait_run() says the same");
	is($look->query("SELECT epro_etl.cancel_run($run)"), 'f', "$name: there is nothing to cancel");
	is($look->query(q{SELECT status, claimed, remaining FROM epro_etl.run('mood', workers => 2)}),
		'succeeded|' . (600 - $claimed) . '|0', "$name: the next run does the rest");
	is($look->query('SELECT count(*) FROM staging'), 0, "$name: nothing is left in staging");
	oracle_ok($look, "$name, after the next run");
	$look->close;
	return;
}

# Before there is a run in the ledger there is nothing to say about it.
sub killed_while_opening
{
	my $name = 'kill -9 of a worker before its run is in the ledger';
	my $look = observer($node);

	restage($look, 1, 600);
	my $locker = EproTest::Psql->new($node);
	my $caller = EproTest::Psql->new($node);
	$locker->query('BEGIN; LOCK TABLE epro_etl.run_ledger IN ACCESS EXCLUSIVE MODE');
	$caller->send(q{SELECT * FROM epro_etl.run('mood', workers => 2)});
	ok(until_true($look, q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'epro_etl.run_ledger'::regclass AND NOT granted}),
		"$name: it waits");
	kill 'KILL', worker($look);
	$caller->wait;
	await_back($node);
	$_->close foreach ($look, $caller, $locker);
	$look = observer($node);
	is(status_of($look), '', "$name: no run");
	oracle_ok($look, $name);
	is($look->query(q{SELECT status, claimed FROM epro_etl.run('mood', workers => 2)}), 'succeeded|600', "$name: the next run does all");
	oracle_ok($look, "$name, after the next run");
	$look->close;
	return;
}
