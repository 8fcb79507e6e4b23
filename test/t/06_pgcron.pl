# The scheduler of real life: pg_cron calls run_job().
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use Test::More;

my $installed = PostgreSQL::Test::Cluster->new('look');
unless (-e $installed->config_data('--pkglibdir') . '/pg_cron.so')
{
	plan skip_all => 'pg_cron is not installed';
}

my $node = create_node('cron',
	conf => "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'postgres'\ncron.use_background_workers = on\n");
create_fixture($node, gates => 0);
my $look = observer($node);
$look->query('CREATE EXTENSION pg_cron');

# Seconds came with pg_cron 1.5; before, a minute is the least.
my $seconds = $look->query(q{SELECT string_to_array(regexp_replace(extversion, '[^0-9.].*', ''), '.')::int[] >= '{1,5}' FROM pg_extension WHERE extname = 'pg_cron'});
my $every = $seconds eq 't' ? '1 second' : '* * * * *';
$EproTest::PATIENCE = 90 if $EproTest::PATIENCE < 90;

restage($look, 1, 2000, 7);
$look->query("SELECT cron.schedule('nightly', '$every', \$\$CALL epro_etl.run_job('mood', workers => 2, reason => 'by pg_cron')\$\$)");
$look->query("SELECT cron.schedule('broken', '$every', \$\$CALL epro_etl.run_job('nosuch')\$\$)");
my $detail = q{SELECT count(*) > 0 FROM cron.job_run_details d JOIN cron.job j USING (jobid) WHERE j.jobname = '%s' AND d.status = '%s'};
ok(until_true($look, sprintf $detail, 'nightly', 'succeeded'), 'pg_cron says that the job succeeded');
ok(until_true($look, sprintf $detail, 'broken', 'failed'), 'pg_cron says that the broken job failed');
is($look->query(q{SELECT DISTINCT return_message ~ 'pipeline "nosuch" does not exist' FROM cron.job_run_details d JOIN cron.job j USING (jobid) WHERE j.jobname = 'broken' AND d.status = 'failed'}),
	't', 'and why');
$look->query(q{SELECT cron.unschedule('nightly'), cron.unschedule('broken')});
# with seconds another call may be on its way
ok(until_true($look, q{SELECT count(*) FROM epro_etl.run_history WHERE status = 'running'}, 0), 'no run is going on');

is($look->query('SELECT count(*) FROM mood_sink'), 1715, 'the sink is full');
is($look->query('SELECT count(*) FROM staging'), 0, 'staging is empty');
is($look->query(q{SELECT run_id, status, claimed, loaded, rejected, workers, reason, session_user_name = current_user FROM epro_etl.run_history ORDER BY run_id LIMIT 1}),
	'1|succeeded|2000|1715|285|2|by pg_cron|t', 'the ledger says who and why');
oracle_ok($look, 'pg_cron');

$look->close;
$node->stop('fast');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal/,
	'no process crashed');
done_testing();
