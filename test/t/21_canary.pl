# A canary in every field of every response, and then everything that can go
# wrong goes wrong: no canary is to be found where it does not belong.
#
# Canaries are in the answers (another one for each kind), in the names of answers,
# in subject, visit, study and form, and in a column that no role is given. Staged
# they are by COPY from a file; no statement of this test has one in its text.
#
# What is promised, of a server that is told to tell all (debug5, statements,
# parameters, parse trees and plans, auto_explain of nested statements, verbose):
#
#   Whatever identifies (subject, what is removed or redacted, columns outside the
#   payload, answers that no form knows, a form that there is not) is in the source
#   and in quarantine, and in the table of random codes; nowhere else.
#   Answers, visit and study are besides in the sinks and in the outbox.
#   So neither is in the server's log, in an error, a notice or an answer to a
#   client, in findings, ledger and live views, in pg_stat_activity and
#   pg_stat_statements, nor in what a crash leaves.
#
#   On another server, identifiers are nowhere. Answers arrive there as parameters:
#   they are in no statement's text, so not in pg_stat_statements; but a server that
#   logs parameters, plans or the DETAIL of its errors logs them, and what its own
#   triggers tell it logs, too. Where that is off for the role that loads
#   (far_terse), its log has no answer.
#
# What is not promised, and not tried: what a function of a trigger or rule tells by
# RAISE of less than an error, or puts into the text of a statement; what a session
# of its own asks, such as a SELECT of a sink with an answer in it; the parameters of
# plans, which auto_explain logs from PostgreSQL 16 on unless told not to; the commit of an
# inline run, where the other server's own message is the client's (see README);
# pg_statistic, which has values of any table that was analysed; the answer that is
# compressed, encrypted or less than three letters of it.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use EproTest;
use JSON::PP;
use MIME::Base64;
use RemoteTest qw(create_far log_since reach);
use Test::More;
use Time::HiRes qw(sleep time);

# Every canary is of this and two letters more that say which it is, over and
# over: so a piece of seven letters is enough to find it.
my $canary = 'zjq';
my %kinds = (
	su => 'subject', ex => 'column outside the payload', ma => 'e-mail (removed)', na => 'name (redacted)', ke => 'name of an answer that no form knows',
	fo => 'form', vi => 'visit', st => 'study',
	no => 'note', co => 'code', pa => 'text against a pattern', fm => 'text against a format', ty => 'text for a number',
	le => 'text of a wrong length', ar => 'element of a list', ob => 'answer in an object', an => 'answer against anyOf', de => 'answer nested deep', bi => 'large answer',
	fh => 'FHIR answer', od => 'ODM answer');
# these leave the source for quarantine and for nothing else
my $identifiers = qr/(?:su|ex|ma|na|ke|fo|birth|own number)$/;
my $number = 770123457188;
my $own_number = 660123457188;
my $birth = '1871-03-29';

my $sink_columns = 'source_id bigint NOT NULL, study text, subject_key text NOT NULL, form text, visit text, authored timestamptz, note text, num bigint,'
  . ' code text, pat text, mail text, name text, birth int, run_id bigint NOT NULL';

my $noisy = <<'CONF';
log_min_messages = debug5
log_min_error_statement = debug5
log_error_verbosity = verbose
log_statement = 'all'
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_lock_waits = on
log_temp_files = 0
log_connections = on
log_disconnections = on
debug_print_parse = on
debug_print_rewritten = on
debug_print_plan = on
debug_pretty_print = off
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_verbose = on
auto_explain.log_triggers = on
auto_explain.log_nested_statements = on
pg_stat_statements.track = all
pg_stat_statements.save = on
CONF
# of who stages, looks and samples
my $quiet = { log_statement => 'none', log_min_duration_statement => -1, log_min_messages => 'warning', debug_print_parse => 'off',
	debug_print_rewritten => 'off', debug_print_plan => 'off', 'auto_explain.log_min_duration' => -1, client_min_messages => 'warning' };

my $node = create_node('canary', conf => "shared_preload_libraries = 'epro_etl, pg_stat_statements, auto_explain'\nautovacuum = off\nepro_etl.naptime = '100ms'\n");
my ($look, $caller, $locker, $sampler);
my ($far, $there);
my $told = '';
my $searched = 0;
my $id = 0;

fixture();
begin();
parts('main', qw(schema payloads checks sinks ends crash streams front_ends methods far far_terse));

$look->query('SELECT pg_terminate_backend(' . $sampler->backend . ')');
$_->close foreach ($look, $caller, $locker, $sampler);
$node->stop('fast');
if ($far)
{
	$there->close;
	$far->stop('fast');
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC:|TRAP:|was terminated by signal (?!9)/, 'no process crashed');
done_testing();

# ---- the canaries ----

# The canary of a kind, in so many letters or more.
sub bird
{
	my ($kind, $length) = @_;
	die "no such kind: $kind" unless $kinds{$kind};
	return "$canary$kind" x (4 + ($length || 0) / 5);
}

# A payload with a canary in every answer, and what is to be wrong with it.
sub payload
{
	my ($change) = @_;
	return {
		note => bird('no'), num => 1, mail => bird('ma') . '@' . bird('ma') . '.example', name => bird('na'), birth => $birth,
		bird('ke') => bird('ke'), %{ $change || {} } };
}

# Stages responses: each a hash of columns; a payload that is text stays as it
# is. By a file, since the server logs statements. Returns their numbers.
sub put
{
	my ($table, @responses) = @_;
	my $path = $node->basedir . '/staged';
	my $json = JSON::PP->new->canonical->allow_nonref->max_depth(100000);
	my @ids;

	open my $file, '>', $path or die "could not write $path: $!";
	foreach my $response (@responses)
	{
		my %row = (study => bird('st'), form => 'CAN', subject => bird('su'), visit => bird('vi'), authored => '2026-01-01 08:00+00', extra => bird('ex'),
			payload => payload(), %$response);

		push @ids, ++$id;
		$row{payload} = $json->encode($row{payload}) if ref $row{payload};
		print $file join("\t", $id, map { defined $_ ? s/([\\\t\n])/\\$1/gr : '\N' } @row{qw(study form subject visit authored extra payload)}), "\n";
	}
	close $file;
	chmod 0644, $path;
	$look->query("COPY $table (response_id, study, form, subject, visit, authored, extra, payload) FROM '$path'");
	unlink $path;
	return @ids;
}

# ---- the search ----

# What is found in a text: "kind (how it is written)" => a piece of the text before it.
sub found
{
	my ($text) = @_;
	my %found;
	my $add = sub {
		my ($kind, $how, $at) = @_;
		my $from = $at > 120 ? $at - 120 : 0;
		$found{"$kind, $how"} //= substr($text, $from, 200) =~ s/\s+/ /gr;
	};

	while ($text =~ /$canary(..)?/gi) { $add->(lc($1 // ''), 'plain', $-[0]); }
	while ($text =~ /(?:7a|5a)(?:6a|4a)(?:71|51)([0-9a-f]{4})(?:7a|5a)(?:6a|4a)(?:71|51)/gi) { $add->(lc pack('H*', $1), 'hex', $-[0]); }
	while ($text =~ /\b122,? ?106,? ?113,? ?(\d+),? ?(\d+),? ?122,? ?106\b/g) { $add->(pack('C*', $1, $2), 'bytes', $-[0]); }
	while ($text =~ /\\u007a\\u006a\\u0071(?:\\u00(..)\\u00(..))?/gi) { $add->(lc pack('H*', ($1 // '') . ($2 // '')), 'escaped', $-[0]); }
	foreach my $kind (keys %kinds)
	{
		foreach my $shift (0 .. 2)
		{
			# what does not depend on the letters around it
			my $middle = substr(encode_base64('x' x $shift . "$canary$kind" x 2, ''), $shift ? 4 : 0, 8);
			while ($text =~ /\Q$middle\E/g) { $add->($kind, 'base64', $-[0]); }
		}
	}
	while ($text =~ /7701234571/g) { $add->('number', 'plain', $-[0]); }
	while ($text =~ /6601234571/g) { $add->('own number', 'plain', $-[0]); }
	while ($text =~ m{1871-03-29|29[./]03[./]1871|03[-/]29[-/]1871}g) { $add->('birth', 'plain', $-[0]); }
	return \%found;
}

# One assertion: nothing in a text but for kinds that may be there.
sub absent
{
	my ($text, $where, $may) = @_;
	my $found = found($text);
	my @bad = grep { my ($kind) = split /,/; !($may && $kind =~ $may) } sort keys %$found;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = is(join('; ', map { my ($kind, $how) = split /, /; ($kinds{$kind} // $kind) . ", $how" } @bad), '', "$where: no canary");
	diag("HIT $where: $_: $found->{$_}") foreach @bad;
	return $ok;
}

# Whatever there is, at the end of a part.
sub search
{
	my ($part) = @_;
	my @tables = split /\n/, $look->query(q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'epro_etl'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1});
	# the owner's tables: what is kept on purpose
	my %may = ('epro_etl.quarantine' => qr/./, 'epro_etl.outbox' => qr/^(?!$identifiers)/, 'epro_etl.superseded' => qr/./, 'epro_etl.pseudonym' => qr/./);

	absent($told, "$part: what clients were told");
	$told = '';
	foreach my $table (@tables)
	{
		absent($look->query("SELECT t::text FROM $table t"), "$part: $table", $may{$table});
	}
	my $statements = $look->query('SELECT query FROM pg_stat_statements');
	absent($statements, "$part: pg_stat_statements");
	absent(slurp_texts($node), "$part: the file of pg_stat_statements");
	absent($look->query('SELECT * FROM sampled'), "$part: what pg_stat_activity and the live views showed");
	foreach my $sink (split /\n/, $look->query(q{SELECT DISTINCT target FROM epro_etl.sink WHERE EXISTS (SELECT FROM pg_class WHERE oid = target AND relkind IN ('r', 'p'))}))
	{
		absent($look->query("SELECT t::text FROM $sink t"), "$part: sink $sink", qr/^(?!$identifiers)/);
	}
	my $log = log_since($node, $searched);
	$searched += length $log;
	absent($log, "$part: the server's log");
	is(join(' ', glob($node->data_dir . '/core*')), '', "$part: no core file");
	return;
}

# The texts of statements as they are kept on disk, while the server is up.
sub slurp_texts
{
	my ($server) = @_;
	my $path = $server->data_dir . '/pg_stat_tmp/pgss_query_texts.stat';
	return -e $path ? PostgreSQL::Test::Utils::slurp_file($path) : '';
}

# ---- the server ----

sub fixture
{
	$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_stat_statements;
CREATE TABLE staging (response_id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, extra text, payload jsonb);
CREATE TABLE staging_text (response_id bigint PRIMARY KEY, study text, form text, subject text, visit text, authored timestamptz, extra text, payload text);
CREATE TABLE sampling (done boolean);
CREATE TABLE sampled (line text PRIMARY KEY);
CREATE PROCEDURE sample() LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        INSERT INTO sampled SELECT DISTINCT concat_ws(' ', a.backend_type, a.application_name, a.state, a.wait_event, a.query) FROM pg_stat_activity a WHERE pid <> pg_backend_pid()
            UNION SELECT concat_ws(' ', a.backend_type, p::text) FROM pg_stat_activity a, epro_etl.stat_progress p WHERE a.pid = p.pid
            UNION SELECT concat_ws(' ', pipeline, state, sqlstate, message) FROM epro_etl.stat_stream ON CONFLICT DO NOTHING;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
CREATE ROLE plain; GRANT USAGE ON SCHEMA epro_etl TO plain; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA epro_etl TO plain; GRANT SELECT, DELETE, UPDATE ON staging TO plain;
CREATE TABLE ref (id int PRIMARY KEY, code text); INSERT INTO ref SELECT g, 'code ' || g FROM generate_series(1, 3) g;
CREATE TABLE busy (id int); INSERT INTO busy VALUES (1);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE TG_OP WHEN ''DELETE'' THEN OLD ELSE NEW END; END';
CREATE FUNCTION told(t text, state text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE EXCEPTION 'not %', t USING ERRCODE = state, DETAIL = 'detail ' || t, HINT = 'hint ' || t, CONSTRAINT = t, COLUMN = t, TABLE = t, SCHEMA = t, DATATYPE = t;
END $$;
CREATE FUNCTION executed(t text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN EXECUTE 'SELECT ' || t || ' x x'; RETURN true; END $$;
CREATE FUNCTION large(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT string_agg(md5(t || g), t) FROM generate_series(1, 200) g $$;
CREATE FUNCTION slow(t text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(10); RETURN t = ''; END $$;
CREATE FUNCTION known(t text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN EXISTS (SELECT FROM public.ref r WHERE r.code = t); END $$;
SELECT epro_etl.register_form('CAN', '{"type": "object", "required": ["note"], "properties": {
    "note": {"type": "string"},
    "num": {"type": "integer", "minimum": 0, "maximum": 900000000000},
    "code": {"enum": ["A", "B", 3]},
    "pat": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"},
    "short": {"type": "string", "maxLength": 5}, "long": {"type": "string", "minLength": 500},
    "few": {"type": "integer", "exclusiveMinimum": 0, "maximum": 100, "multipleOf": 5},
    "float": {"type": "number"}, "flag": {"type": "boolean"}, "nil": {"type": "null"}, "fixed": {"const": "ok"},
    "e_mail": {"type": "string", "format": "email"}, "day": {"type": "string", "format": "date"}, "instant": {"type": "string", "format": "date-time"},
    "clock": {"type": "string", "format": "time"}, "v4": {"type": "string", "format": "ipv4"}, "uuid": {"type": "string", "format": "uuid"}, "span": {"type": "string", "format": "duration"},
    "list": {"type": "array", "items": {"type": "string", "maxLength": 22}, "uniqueItems": true, "maxItems": 3},
    "has": {"type": "array", "contains": {"type": "integer"}}, "tuple": {"type": "array", "prefixItems": [{"type": "integer"}], "unevaluatedItems": false},
    "closed": {"type": "object", "additionalProperties": false}, "named": {"type": "object", "propertyNames": {"maxLength": 3}, "maxProperties": 1},
    "open": {"type": "object", "patternProperties": {"^zj": {"type": "integer"}}, "unevaluatedProperties": false},
    "any": {"anyOf": [{"type": "integer"}, {"type": "object", "required": ["b"], "properties": {"a": {"type": "integer"}}}]},
    "one": {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 1}]},
    "cond": {"if": {"type": "string"}, "then": {"maxLength": 2}, "else": false}, "negated": {"not": {"type": "string"}},
    "needs": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "tree": {"$ref": "#/$defs/tree"},
    "mail": {"type": "string"}, "name": {"type": "string"}, "birth": {"type": "string", "format": "date"}},
  "$defs": {"tree": {"type": "object", "properties": {"t": {"$ref": "#/$defs/tree"}}}}}');
SELECT epro_etl.set_deid('CAN', '/mail', 'remove'), epro_etl.set_deid('CAN', '/name', 'redact'), epro_etl.set_deid('CAN', '/birth', 'generalize', '{"to": "age", "cap": 90}');
SELECT epro_etl.create_pipeline('can', 'staging', '{"id": "response_id"}'), epro_etl.create_pipeline('text', 'staging_text', '{"id": "response_id"}');
SELECT epro_etl.create_sink('can', 'CAN', 'can_sink'), epro_etl.create_sink('text', 'CAN', 'text_sink');
SQL
	return;
}

# From here on the server tells all it can. Who stages, looks and samples is not part of what is looked at.
sub begin
{
	$searched = -s $node->logfile;
	# it would log the parameters of the plans by which rows go into sinks; before 16 there is no such setting
	$noisy .= "auto_explain.log_parameter_max_length = 0\n" if $node->pg_version >= 16;
	$node->append_conf('postgresql.conf', $noisy);
	$node->reload;
	connect_here();
	until_true($caller, q{SELECT current_setting('debug_print_plan')}, 'on');
	return;
}

sub connect_here
{
	$look = EproTest::Psql->new($node, options => $quiet);
	$locker = EproTest::Psql->new($node, options => $quiet);
	$caller = EproTest::Psql->new($node);
	$sampler = EproTest::Psql->new($node, options => $quiet);
	$sampler->query('TRUNCATE sampling');
	$sampler->send('CALL sample()');
	return;
}

# After a crash.
sub reconnect
{
	reach($node)->close;
	$_->close foreach ($look, $caller, $locker, $sampler);
	connect_here();
	return;
}

# Says something as a client does that is looked at; returns what is to be seen
# of it: the SQLSTATE of an error, or the answer.
sub say_to
{
	my ($sql) = @_;
	my ($out, $error) = $caller->try($sql);

	$told .= "$out\n$error\n";
	return sqlstate($error) || $out;
}

# Everything that was found in a run, "id kind rule" a line.
sub findings
{
	return $look->query(q{SELECT source_id, kind, rule, message FROM epro_etl.finding ORDER BY source_id::int, kind, rule});
}

# ---- the parts ----

# Takes away what the case before has left, and stages responses.
sub stage_anew
{
	$look->query('SET session_replication_role = replica; DELETE FROM staging; DELETE FROM staging_text; DELETE FROM epro_etl.quarantine; RESET session_replication_role');
	return put(@_);
}

# What was found of some responses: "kind rule" a line.
sub kinds_of
{
	return $look->query(q{SELECT DISTINCT kind || ' ' || rule FROM epro_etl.finding WHERE source_id::int IN (} . join(',', @_) . ') ORDER BY 1') =~ s/\n/, /gr;
}

sub run_of
{
	my ($pipeline, $workers, $more) = @_;
	return say_to("SELECT status FROM epro_etl.run('$pipeline', workers => $workers" . ($more ? ", $more" : '') . ')');
}

# A sink by its DDL, in the place of the one that there is; "more" follows it.
sub sink_of
{
	my ($ddl, $more, $with) = @_;
	$look->query(q{DELETE FROM epro_etl.outbox; SELECT epro_etl.remove_sink('can', 'CAN', target) FROM epro_etl.sink JOIN epro_etl.pipeline p USING (pipeline_id) WHERE p.name = 'can' AND form = 'CAN';
		DROP TRIGGER IF EXISTS t ON staging; DROP VIEW IF EXISTS can_view; DROP TABLE IF EXISTS can_sink, allowed CASCADE; DROP FOREIGN TABLE IF EXISTS can_far; DROP DOMAIN IF EXISTS good; DROP TYPE IF EXISTS sole});
	$look->query($ddl);
	$look->query(q{SELECT epro_etl.add_sink('can', 'CAN', '} . ($ddl =~ /(can_view|can_far)/ ? $1 : 'can_sink') . "'" . ($with ? ", $with" : '') . ')');
	$look->query($more) if $more;
	return;
}

# Each response has one thing wrong.
sub schema
{
	my $deep = {};
	$deep = { t => $deep } foreach 1 .. 3000;
	$deep->{t} = bird('de');
	my @wrong = (
		[ { note => undef }, 'type' ],
		[ { note => { bird('ke') => bird('ty') } }, 'type' ],
		[ { num => bird('ty') }, 'type' ],
		[ { num => $number * 10 }, 'maximum' ],
		[ { few => $number }, 'maximum' ],
		[ { few => -$number - 0.5 }, 'type' ],
		[ { code => bird('co') }, 'enum' ],
		[ { pat => bird('pa') }, 'pattern' ],
		[ { short => bird('le') }, 'maxLength' ],
		[ { long => bird('le') }, 'minLength' ],
		[ { flag => bird('ty') }, 'type' ],
		[ { nil => bird('ty') }, 'type' ],
		[ { fixed => bird('co') }, 'const' ],
		(map { [ { $_ => bird('fm') }, 'format' ] } qw(e_mail day instant clock v4 uuid span)),
		[ { day => '2026-02-30T' . bird('fm') }, 'format' ],
		[ { list => [ bird('ar'), bird('ar') ] }, 'uniqueItems' ],
		[ { list => [ bird('ar', 30) ] }, 'maxLength' ],
		[ { list => [ map { bird('ar') . $_ } 1 .. 9 ] }, 'maxItems' ],
		[ { has => [ bird('ar') ] }, 'contains' ],
		[ { tuple => [ 1, bird('ar') ] }, 'false' ],
		[ { closed => { bird('ke') => bird('ob') } }, 'additionalProperties' ],
		[ { named => { bird('ke') => bird('ob') } }, 'propertyNames' ],
		[ { open => { bird('ke') => bird('ob') } }, 'patternProperties' ],
		[ { any => { a => bird('an'), bird('ke') => 1 } }, 'anyOf' ],
		[ { one => bird('an') }, 'oneOf' ],
		[ { cond => bird('an') }, 'maxLength' ],
		[ { negated => bird('an') }, 'not' ],
		[ { needs => { a => bird('ob') } }, 'dependentRequired' ],
		[ { tree => $deep }, '.' ],
		[ { birth => bird('fm') }, 'generalize' ],
		[ { birth => $own_number }, 'generalize' ],
		[ { name => $own_number }, '' ],
		[ { mail => [ { bird('ke') => bird('ma') } ] }, '' ]);

	# with columns for what is not to be stored
	sink_of("CREATE TABLE can_sink ($sink_columns)");
	foreach my $workers (0, 1)
	{
		my @ids = stage_anew('staging', map { { payload => payload($_->[0]) } } @wrong);
		is(run_of('can', $workers), 'succeeded', "schema, $workers workers: the run");
		foreach my $i (0 .. $#ids)
		{
			like(kinds_of($ids[$i]), $wrong[$i][1] ? qr/\b$wrong[$i][1]/ : qr/^$/, "schema, $workers workers: " . join(', ', keys %{ $wrong[$i][0] }) . " is found");
		}
	}
	# nothing is wrong with this one, and the sink that is searched has it
	my @good = stage_anew('staging', { payload => payload({ num => $number, e_mail => bird('fm') . '@' . bird('fm') . '.example', list => [ bird('ar') ] }) });
	is(run_of('can', 1), 'succeeded', 'schema: a good response');
	is($look->query("SELECT birth || ' ' || name || coalesce(mail, '') FROM can_sink WHERE source_id = $good[0]"), '90 REDACTED', 'schema: it is loaded, de-identified');
	stage_anew('staging', map { { payload => payload($_->[0]) } } @wrong);
	is(say_to(q{SELECT count(*) > 30 FROM staging s, LATERAL epro_etl.validate('CAN', s.payload, s.study, s.visit, s.authored) v}), 't', 'schema: validate()');
	say_to(q{SELECT v.* FROM staging s, LATERAL epro_etl.validate('CAN', s.payload, s.study, s.visit, s.authored) v});
	is(run_of('can', 1, 'dry_run => true'), 'succeeded', 'schema: dry run');
	search('schema');
	return;
}

# Payloads that are none, and responses that lack what makes them one.
sub payloads
{
	my $json = JSON::PP->new->canonical;
	my $good = $json->encode(payload());
	my @wrong = (
		[ { payload => bird('no') }, 'payload' ],
		[ { payload => '{"note": "' . bird('no') }, 'payload' ],
		[ { payload => '{"note": "' . bird('no') . '\u0000"}' }, 'payload' ],
		[ { payload => '{"note": "' . bird('no') . '\ud800"}' }, 'payload' ],
		[ { payload => '{"note": "' . bird('no') . "\x01" . '"}' }, 'payload' ],
		[ { payload => '{"note": ' . bird('no') . '}' }, 'payload' ],
		[ { payload => '{"' . bird('ke') . '": "' . bird('no') . '",}' }, 'payload' ],
		[ { payload => '{"note": "x", "num": 1e400}' }, '.' ],
		[ { payload => '{"note": "x", "float": 1' . '0' x 200 . "$number}" }, '' ],
		[ { payload => '{"note": "x", "float": 1e999999999, "' . bird('ke') . '": 1}' }, 'payload' ],
		[ { payload => ('[' x 20000) . '"' . bird('de') . '"' . (']' x 20000) }, 'payload' ],
		[ { payload => '["' . bird('no') . '"]' }, 'payload' ],
		[ { payload => '"' . bird('no') . '"' }, 'payload' ],
		[ { payload => undef }, 'payload' ],
		[ { form => bird('fo'), payload => $good }, 'form' ],
		[ { form => undef, payload => $good }, 'form' ],
		[ { subject => undef, payload => $good }, 'subject' ],
		[ { subject => '', payload => $good }, 'subject' ],
		[ { payload => $json->encode(payload({ note => bird('bi', 100000) })) }, '' ],
		[ { study => undef, visit => undef, authored => undef, payload => $json->encode(payload({ num => $number * 10 })) }, 'maximum' ]);

	foreach my $workers (0, 1)
	{
		my @ids = stage_anew('staging_text', map { $_->[0] } @wrong);
		is(run_of('text', $workers), 'succeeded', "payloads, $workers workers: the run");
		foreach my $i (0 .. $#ids)
		{
			like(kinds_of($ids[$i]), $wrong[$i][1] ? qr/$wrong[$i][1]/ : qr/^$/, "payloads, $workers workers: response $i is found");
		}
	}
	search('payloads');
	return;
}

# Edit checks, lookups and scores: each says what it can of the answers.
sub checks
{
	$look->query(q{SELECT epro_etl.register_form('CHK', '{"properties": {"note": {"type": "string"}, "num": {"type": "integer"}, "none": {"type": "string"}, "pd": {"type": "string"}, "total": {"type": "integer"},
		"mail": {"type": "string"}, "name": {"type": "string"}, "birth": {"type": "string", "format": "date"}}}');
		SELECT epro_etl.set_deid('CHK', '/mail', 'remove'), epro_etl.set_deid('CHK', '/name', 'redact'), epro_etl.set_deid('CHK', '/birth', 'generalize', '{"to": "age", "cap": 90}');
		SELECT epro_etl.create_sink('can', 'CHK', 'chk_sink')});
	my %edit = (
		'is false' => [ q{note = 'x' AND visit = 'y'}, 'check' ],
		'is null' => [ q{none = 'x'}, 'not evaluated' ],
		'subject' => [ q{subject = 'x' OR study = 'x'}, 'check' ],
		'partial' => [ q{epro_etl.partial_date_before(pd, '2026')}, 'not evaluated' ],
		'int' => [ 'note::int > 0', 'error' ], 'int4' => [ 'num::int4 > 0', 'error' ], 'overflow' => [ 'num * 9223372036854775807::int8 > 0', 'error' ], 'zero' => [ 'num / (num - num) > 0', 'error' ],
		'date' => [ q{note::date > 'epoch'}, 'error' ], 'visit as a date' => [ q{visit::timestamptz > 'epoch'}, 'error' ], 'to_date' => [ q{to_date(note, 'YYYY') > 'epoch'}, 'error' ],
		'json' => [ q[('{' || note)::json IS NOT NULL], 'error' ], 'jsonb' => [ q{note::jsonb IS NOT NULL}, 'error' ], 'regtype' => [ 'note::regtype IS NOT NULL', 'error' ],
		'regex' => [ q{note ~ ('(' || note)}, 'error' ], 'uuid' => [ 'note::uuid IS NOT NULL', 'error' ], 'inet' => [ 'note::inet IS NOT NULL', 'error' ], 'bytea' => [ q{decode(note, 'hex') IS NOT NULL}, 'error' ],
		'setting' => [ 'current_setting(note) IS NOT NULL', 'error' ], 'array' => [ 'note::int[] IS NOT NULL', 'error' ], 'interval' => [ q{note::interval > '1 day'}, 'error' ],
		'executed' => [ 'public.executed(note)', 'error' ],
		map { ("raises $_" => [ "public.told(note || visit || subject, '$_')", 'error' ]) } qw(P0001 23505 22P02 42501 42P01));
	my %lookups = (
		'asks int' => [ 'EXISTS (SELECT FROM public.ref r WHERE r.id = note::int)', 'error' ],
		'asks false' => [ 'EXISTS (SELECT FROM public.ref r WHERE r.code = note AND r.code = visit)', 'check' ],
		'asks function' => [ 'EXISTS (SELECT FROM public.ref r WHERE public.known(r.code || response.note))', 'check' ],
		'asks raises' => [ q{EXISTS (SELECT FROM public.ref r WHERE public.told(response.note || r.code, 'P0001'))}, 'error' ],
		'asks many' => [ 'EXISTS (SELECT FROM public.ref q WHERE (SELECT r.code > response.note FROM public.ref r))', 'error' ],
		'asks slow' => [ 'EXISTS (SELECT FROM public.ref r WHERE public.slow(response.note || r.code))', 'unanswered' ]);

	foreach my $check (sort keys %edit)
	{
		$look->query("SELECT epro_etl.add_edit_check('CHK', '$check', \$\$$edit{$check}[0]\$\$)");
	}
	foreach my $lookup (sort keys %lookups)
	{
		$look->query("SELECT epro_etl.add_lookup('CHK', '$lookup', \$\$$lookups{$lookup}[0]\$\$, timeout => '100 ms', on_timeout => 'reject')");
	}
	$look->query(q{SELECT epro_etl.add_score('CHK', 'sum', '{"items": ["num", "total"], "range": [0, 3]}');
		SELECT epro_etl.add_check('CHK', 'once', 'unique_key', '{"table": "public.chk_sink", "match": {"note": "note"}}')});
	foreach my $workers (0, 1)
	{
		my @ids = stage_anew('staging', { form => 'CHK', payload => payload({ num => $number, pd => '2026-UN-' . bird('fm'), total => 1 }) });
		is(run_of('can', $workers), 'succeeded', "checks, $workers workers: the run");
		my %found = map { /^(.*)\|(.*)$/ ? ($1 => $2) : () } split /\n/, $look->query("SELECT rule, kind FROM epro_etl.finding WHERE source_id = '$ids[0]'");
		foreach my $rule (sort(keys %edit, keys %lookups))
		{
			is($found{$rule} // '', ($edit{$rule} || $lookups{$rule})->[1], "checks, $workers workers: $rule");
			delete $found{$rule};
		}
		is(join(', ', map { "$_ $found{$_}" } sort keys %found), 'sum not evaluated', "checks, $workers workers: and the score");
	}

	# what is not the data's ends the run
	foreach my $state (qw(57014 40001 40P01 55000 53100 EP006 XX000 08006))
	{
		$look->query("SELECT epro_etl.add_edit_check('CHK', 'ends it', \$\$public.told(note || visit, '$state')\$\$)");
		foreach my $workers (0, 1)
		{
			stage_anew('staging', { form => 'CHK' });
			is(run_of('can', $workers), $state, "checks, $workers workers: an error of state $state");
		}
	}
	$look->query(q{SELECT epro_etl.remove_edit_check('CHK', 'ends it');
		SELECT epro_etl.add_lookup('CHK', 'ends it', 'EXISTS (SELECT FROM public.ref r WHERE public.executed(response.note || r.code))')});
	foreach my $workers (0, 1)
	{
		stage_anew('staging', { form => 'CHK' });
		is(run_of('can', $workers), '42601', "checks, $workers workers: a lookup that cannot be asked");
	}
	$look->query(q{SELECT epro_etl.remove_edit_check('CHK', 'ends it')});
	search('checks');
	return;
}

# Sinks that refuse a row, and tell all of it.
sub sinks
{
	my $table = "CREATE TABLE can_sink ($sink_columns";
	my $tell = sub {
		my ($how) = @_;
		return ("$table)", "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN $how; RETURN NEW; END\$\$; CREATE TRIGGER t BEFORE INSERT ON can_sink FOR EACH ROW EXECUTE FUNCTION tell()");
	};
	my $all = 'DETAIL = NEW::text, HINT = NEW.note, CONSTRAINT = NEW.note, COLUMN = NEW.visit, TABLE = NEW.note, SCHEMA = NEW.note, DATATYPE = NEW.note';
	my $source = sub {
		my ($state) = @_;
		return ("$table)", "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN RAISE EXCEPTION 'not %', OLD USING ERRCODE = '$state', DETAIL = OLD::text, HINT = OLD.subject, CONSTRAINT = OLD.subject; END\$\$;"
			  . ' CREATE TRIGGER t BEFORE DELETE ON staging FOR EACH ROW EXECUTE FUNCTION tell()');
	};

	# what has to be seen of each: the run's end, and the finding
	my %seen = (
		(map { $_ => 'constraint can_sink_note_key' } 'unique', 'unique, by the executor'),
		'exclusion' => 'constraint can_sink_note_excl', 'check' => 'constraint can_sink_note_check', 'index row too large' => 'constraint can_sink_large_idx',
		(map { $_ => 'constraint can_sink_note_fkey' } 'foreign key', 'deferred foreign key'),
		(map { $_ => 'constraint 22P02' } 'check that raises', 'index that raises', 'generated'),
		(map { $_ => 'constraint 23514' } 'check by a function', 'no partition', 'rule'),
		(map { $_ => 'conversion note' } 'domain', 'enum', 'too short', 'of another type'),
		'too small' => 'conversion num', 'not null' => 'constraint 23502', 'default that raises' => 'conversion sink', 'row security' => 'constraint 42501',
		'view with check option' => 'constraint 44000', 'trigger' => 'constraint P0001', 'trigger, syntax' => 'constraint 42601', 'trigger, looks' => '', 'trigger, 23505' => 'constraint 23505');

	foreach my $case (
		[ 'unique', "$table, UNIQUE (note))" ],
		[ 'unique, by the executor', "$table, UNIQUE (note))", 'CREATE TRIGGER t BEFORE INSERT ON can_sink FOR EACH ROW EXECUTE FUNCTION nothing()' ],
		[ 'exclusion', "$table, EXCLUDE (note WITH =))" ],
		[ 'check', "$table, CHECK (note = ''))" ],
		[ 'check that raises', "$table, CHECK (note::int > 0))" ],
		[ 'check by a function', "$table, CHECK (told(note, '23514')))" ],
		[ 'index that raises', "$table)", 'CREATE INDEX ON can_sink ((note::int))' ],
		[ 'index row too large', "$table)", q{CREATE INDEX ON can_sink ((large(note)))} ],
		[ 'foreign key', "CREATE TABLE allowed (n text PRIMARY KEY); $table, FOREIGN KEY (note) REFERENCES allowed)" ],
		[ 'deferred foreign key', "CREATE TABLE allowed (n text PRIMARY KEY); $table, FOREIGN KEY (note) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED)" ],
		[ 'no partition', "$table) PARTITION BY LIST (note)" ],
		[ 'domain', 'CREATE DOMAIN good AS text CHECK (VALUE = \'\'); ' . ($table =~ s/note text/note good/r) . ')' ],
		[ 'enum', q{CREATE TYPE sole AS ENUM ('a'); } . ($table =~ s/note text/note sole/r) . ')' ],
		[ 'too short', ($table =~ s/note text/note varchar(3)/r) . ')' ],
		[ 'of another type', ($table =~ s/note text/note uuid/r) . ')' ],
		[ 'too small', ($table =~ s/num bigint/num int/r) . ')' ],
		[ 'not null', "$table, site text NOT NULL)" ],
		[ 'generated', "$table, made int GENERATED ALWAYS AS (note::int) STORED)" ],
		[ 'default that raises', "$table, made boolean DEFAULT told('x', '22023'))" ],
		[ 'row security', "$table); ALTER TABLE can_sink ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON can_sink WITH CHECK (note = ''); ALTER TABLE can_sink OWNER TO plain; GRANT INSERT ON ALL TABLES IN SCHEMA public TO plain" ],
		[ 'view with check option', "$table); CREATE VIEW can_view AS SELECT * FROM can_sink WHERE note = '' WITH CHECK OPTION" ],
		[ 'rule', "$table)", q{CREATE RULE r AS ON INSERT TO can_sink DO ALSO SELECT public.told(NEW.note, '23514')} ],
		[ 'trigger', $tell->("RAISE EXCEPTION 'not %', NEW USING $all") ],
		[ 'trigger, syntax', $tell->(q{EXECUTE 'SELECT ' || NEW.note || ' x x'}) ],
		[ 'trigger, looks', $tell->('PERFORM 1 FROM public.ref r WHERE r.code = NEW.note') ],
		(map { [ "trigger, $_", $tell->("RAISE EXCEPTION 'not %', NEW USING ERRCODE = '$_', $all") ] } qw(23505 40001 40P01 55000 57014 EP006 EP001 XX000 53100 08006)),
		(map { [ "source trigger, $_", $source->($_) ] } qw(P0001 EP006 40001)))
	{
		my ($name, $ddl, $more) = @$case;

		foreach my $workers (0, 1)
		{
			sink_of($ddl, $more);
			my @ids = stage_anew('staging', map { { payload => payload({ num => $name eq 'too small' ? $number : 1 }) } } 1 .. 3);
			$caller->query('SET ROLE plain') if $name eq 'row security';
			my $end = run_of('can', $workers);
			$caller->query('RESET ROLE') if $name eq 'row security';
			is("$end " . kinds_of(@ids), defined $seen{$name} ? "succeeded $seen{$name}" : ($name =~ /, (.*)/)[0] . ' ', "sinks, $name, $workers workers: it was so");
			absent($look->query('SELECT t::text FROM can_sink t'), "sinks, $name, $workers workers: in the sink", qr/^(?!$identifiers)/);
			absent($look->query("SELECT t::text FROM epro_etl.finding t"), "sinks, $name, $workers workers: in the findings");
		}
	}
	sink_of("$table, CHECK (note = ''))");
	stage_anew('staging', {}, {});
	is(run_of('can', 1), 'succeeded', 'sinks, requeue: rejected');
	$look->query(q{ALTER TABLE staging ADD CONSTRAINT never CHECK (extra = '') NOT VALID});
	is(say_to(q{SELECT epro_etl.requeue('can')}), '23514', 'sinks, requeue: refused');
	$look->query('ALTER TABLE staging DROP CONSTRAINT never');
	search('sinks');
	return;
}

# A sink at which a response with canaries waits for the lock that the locker has.
sub gate
{
	sink_of("CREATE TABLE can_sink ($sink_columns)", 'CREATE OR REPLACE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_advisory_xact_lock_shared(77, 1); PERFORM pg_advisory_xact_lock_shared(77, 2); RETURN NEW; END$$;'
		  . 'CREATE TRIGGER t BEFORE INSERT ON can_sink FOR EACH ROW EXECUTE FUNCTION wait()');
	$locker->query('SELECT pg_advisory_lock(77, 1)');
	stage_anew('staging', map { {} } 1 .. 3);
	return;
}

# A run that stands at the gate; what was said to it is read by answered().
sub stand
{
	my ($sql) = @_;
	$caller->send($sql);
	return until_true($look, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 77 AND NOT granted}, 1);
}

sub answered
{
	my ($out, $error) = $caller->wait;
	$told .= "$out\n$error\n";
	return sqlstate($error) || $out;
}

# Everything that ends a run, with a response in its hands.
sub ends
{
	foreach my $workers (0, 1)
	{
		my $run = sub { "SELECT status FROM epro_etl.run('can', workers => $workers" . ($_[0] || '') . ')' };
		my $name = "ends, $workers workers";

		gate();
		stand($run->());
		$look->query('SELECT pg_cancel_backend(' . $caller->backend . ')');
		is(answered(), '57014', "$name: cancel");

		is(say_to("SET statement_timeout = '300ms'; " . $run->()), '57014', "$name: statement_timeout");
		say_to('RESET statement_timeout');
		is(say_to($run->(q{, timeout => '200 ms'})), 'EP001', "$name: the run's timeout");
		# a budget cancels again and again, and at debug5 PostgreSQL looks for cancels while it cleans up a subtransaction
		say_to('SET log_min_messages = debug4');
		is(say_to(q{SELECT * FROM epro_etl.with_timeout('200 ms', $q$} . $run->() . q{$q$) AS t (s text)}), 'EP001', "$name: with_timeout()");
		say_to('RESET log_min_messages');
		$look->query(q{SET client_min_messages = error; ALTER ROLE postgres SET lock_timeout = '200ms'});
		$caller->query(q{SET lock_timeout = '200ms'});
		is(say_to($run->()), '55P03', "$name: lock_timeout");
		$caller->query('RESET lock_timeout');
		$look->query('ALTER ROLE postgres RESET lock_timeout');

		# one waits for the sink and has the second lock, for which the other then waits
		$locker->query('SELECT pg_advisory_unlock(77, 1), pg_advisory_lock(77, 2)');
		$look->query('SELECT pg_advisory_lock(77, 1)');
		stand($run->());
		$locker->query(q{SET deadlock_timeout = '30s'; BEGIN});
		$locker->send('LOCK TABLE can_sink');
		until_true($look, q{SELECT count(*) FROM pg_locks WHERE relation = 'can_sink'::regclass AND NOT granted}, 1);
		$look->query('SELECT pg_advisory_unlock(77, 1)');
		$locker->wait;
		$locker->query('ROLLBACK; SELECT pg_advisory_unlock_all()');
		# a worker does its chunk again
		is(answered(), $workers ? 'succeeded' : '40P01', "$name: deadlock");
		like(log_since($node, $searched), qr/detected deadlock while waiting/, "$name: there was one");
		gate();

		stand($run->());
		$look->query('SELECT pg_terminate_backend(' . $caller->backend . ')');
		is(answered(), '57P01', "$name: terminate");
		$caller->close;
		$caller = EproTest::Psql->new($node);
		until_true($look, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 77 AND NOT granted}, 0);

		# somebody changes what the transaction has seen
		$locker->query('SELECT pg_advisory_unlock_all()');
		if (!$workers)
		{
			say_to('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM staging');
			$look->query('UPDATE staging SET extra = extra WHERE response_id = ' . $id);
			say_to('SET epro_etl.batch_size = 10; ' . $run->());
			say_to('ROLLBACK');
		}
		stage_anew('staging', map { { payload => payload({ code => bird('co') }) } } 1 .. 3);
		is(say_to($run->(', max_rejects => 1')), 'stopped', "$name: max_rejects");
		stage_anew('staging', map { { payload => payload({ code => bird('co') }) } } 1 .. 3);
		say_to("CALL epro_etl.run_job('can', workers => $workers, max_rejects => 1)");
		like($told, qr/(?:ERROR|WARNING):  EP007/, "$name: of a job");
	}
	stage_anew('staging', map { {} } 1 .. 3);
	like(say_to(q{SELECT status, workers < 100 FROM epro_etl.run('can', workers => 100)}), qr/^succeeded\|t$/, 'ends: full slots');
	search('ends');
	return;
}

# The server loses a process, or all.
sub crash
{
	foreach my $workers (0, 1)
	{
		gate();
		stand("SELECT status FROM epro_etl.run('can', workers => $workers)");
		my $pid = $workers ? $look->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'epro_etl worker'}) : $caller->backend;
		kill 'KILL', $pid;
		answered();
		until_lost();
		reconnect();
		is(status_of($look), 'crashed', "crash, $workers workers: kill -9") if $workers;

		$locker->query('SELECT pg_advisory_lock(77, 1)');
		stand("SELECT status FROM epro_etl.run('can', workers => $workers)");
		$node->stop('immediate');
		answered();
		$node->start;
		reconnect();
		is(run_of('can', $workers), 'succeeded', "crash, $workers workers: and again");
	}
	search('crash');
	return;
}

sub until_lost
{
	my $end = time() + $EproTest::PATIENCE;
	until ($look->{over} || time() > $end) { $look->try('SELECT'); sleep(0.01); }
	return;
}

# A stream cut into groups, rows that go by their address, and what stops it.
sub streams
{
	my @wrong = ({ code => bird('co') }, { note => bird('no') . '!' }, { note => bird('bi', 20000) }, { num => bird('ty') }, { birth => bird('fm') }, {});
	my $tell = sub {
		my ($state, $when) = @_;
		return "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN IF NEW.note ~ '$when' THEN RAISE EXCEPTION 'not %', NEW USING ERRCODE = '$state', DETAIL = NEW::text, HINT = NEW.note; END IF; RETURN NEW; END\$\$;"
		  . 'CREATE TRIGGER t BEFORE INSERT ON can_sink FOR EACH ROW EXECUTE FUNCTION tell()';
	};

	foreach my $stages ('NULL', q{'{"deidentify": 1, "normalise": 1, "validate": 1, "store": 1}'})
	{
		sink_of("CREATE TABLE can_sink ($sink_columns)", $tell->('P0001', '!$'));
		my @ids = stage_anew('staging', map { { payload => payload($_) } } @wrong);
		say_to("SELECT epro_etl.start_stream('can', $stages)");
		ok(until_true($look, 'SELECT count(*) FROM staging', 0), "streams, $stages: all has left");
		is(kinds_of(@ids), 'constraint P0001, deidentify generalize, schema enum, schema type', "streams, $stages: what was found");
		is(say_to(q{SELECT epro_etl.requeue('can')}), 4, "streams, $stages: back they go");
		ok(until_true($look, 'SELECT count(*) FROM staging', 0), "streams, $stages: and leave again");
		say_to(q{SELECT * FROM epro_etl.stat_stream; SELECT * FROM epro_etl.stat_channel; SELECT * FROM epro_etl.stat_progress});

		# an error that is not the data's: it begins anew, and again
		$look->query('DROP TRIGGER t ON can_sink');
		$look->query($tell->('55000', '.'));
		stage_anew('staging', {});
		ok(until_true($look, q{SELECT sqlstate = '55000' FROM epro_etl.stat_stream}), "streams, $stages: it fails");
		say_to(q{SELECT * FROM epro_etl.stat_stream});
		say_to(q{SELECT epro_etl.stop_stream('can', drain => false)});
		until_true($look, q{SELECT count(*) FROM epro_etl.stat_stream}, 0);
	}
	search('streams');
	return;
}

# Other front ends: a FHIR questionnaire, a form from ODM.
sub front_ends
{
	$look->query(q{SELECT epro_etl.register_form('FHI', '{"resourceType": "Questionnaire", "url": "https://example.org/Questionnaire/pain", "status": "active", "item": [
		{"linkId": "n", "type": "integer", "required": true, "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/maxValue", "valueInteger": 10}]},
		{"linkId": "c", "type": "choice", "answerOption": [{"valueCoding": {"system": "https://example.org/site", "code": "head"}}]},
		{"linkId": "t", "type": "text", "maxLength": 50, "enableWhen": [{"question": "n", "operator": ">", "answerInteger": 3}]},
		{"linkId": "d", "type": "date"}, {"linkId": "q", "type": "quantity"}, {"linkId": "name", "type": "string"}]}');
		SELECT epro_etl.set_deid('FHI', '/name', 'redact')});
	$look->query(q{SELECT epro_etl.register_form('ODM', '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3" ODMVersion="1.3.2" FileType="Snapshot" FileOID="X" CreationDateTime="2026-03-01T09:00:00"><Study OID="S">
		<GlobalVariables><StudyName>S</StudyName><StudyDescription>S</StudyDescription><ProtocolName>S</ProtocolName></GlobalVariables>
		<MetaDataVersion OID="V" Name="V"><FormDef OID="ODM" Name="ODM" Repeating="No"><ItemGroupRef ItemGroupOID="G" Mandatory="Yes"/></FormDef>
		<ItemGroupDef OID="G" Name="G" Repeating="No"><ItemRef ItemOID="SEX" Mandatory="Yes"/><ItemRef ItemOID="W" Mandatory="No"/><ItemRef ItemOID="T" Mandatory="No"/><ItemRef ItemOID="D" Mandatory="No"/></ItemGroupDef>
		<ItemDef OID="SEX" Name="Sex" DataType="text" Length="1"><CodeListRef CodeListOID="C"/></ItemDef>
		<ItemDef OID="W" Name="W" DataType="float" Length="4" SignificantDigits="1"><RangeCheck Comparator="LE" SoftHard="Hard"><CheckValue>300</CheckValue></RangeCheck></ItemDef>
		<ItemDef OID="T" Name="T" DataType="text" Length="10"/><ItemDef OID="D" Name="D" DataType="partialDate"/>
		<CodeList OID="C" Name="C" DataType="text"><CodeListItem CodedValue="F"><Decode><TranslatedText>f</TranslatedText></Decode></CodeListItem></CodeList></MetaDataVersion></Study></ODM>'::text)});
	$look->query(q{SELECT epro_etl.create_sink('can', 'FHI', 'fhi_sink'), epro_etl.create_sink('can', 'ODM', 'odm_sink')});
	my $f = bird('fh');
	my $o = bird('od');
	my $qr = sub { return { resourceType => 'QuestionnaireResponse', status => 'completed', identifier => { value => bird('su') }, subject => { reference => 'Patient/' . bird('su'), display => bird('su') }, item => [@_] } };
	my $a = sub { return { linkId => $_[0], answer => [ { $_[1] => $_[2] } ] } };
	my @wrong = (
		[ 'FHI', $qr->($a->('n', 'valueString', $f)) ],
		[ 'FHI', $qr->($a->('n', 'valueInteger', $number)) ],
		[ 'FHI', $qr->($a->('n', 'valueInteger', 5), $a->('c', 'valueCoding', { system => $f, code => $f, display => $f })) ],
		[ 'FHI', $qr->($a->('n', 'valueInteger', 1), $a->('t', 'valueString', $f)) ],
		[ 'FHI', $qr->($a->('n', 'valueInteger', 5), $a->('t', 'valueString', bird('fh', 100))) ],
		[ 'FHI', $qr->($a->('n', 'valueInteger', 5), $a->('d', 'valueDate', $f)) ],
		[ 'FHI', $qr->($a->('n', 'valueInteger', 5), $a->('q', 'valueQuantity', { value => $f, unit => $f })) ],
		[ 'FHI', $qr->($a->(bird('ke'), 'valueString', $f)) ],
		[ 'FHI', $qr->($a->('n', 'value' . bird('ke'), $f)) ],
		[ 'FHI', { resourceType => $f, status => $f } ],
		[ 'FHI', { %{ $qr->() }, status => $f, questionnaire => $f } ],
		[ 'FHI', $qr->($a->('n', 'valueInteger', 5), $a->('name', 'valueInteger', $own_number)) ],
		[ 'ODM', { SEX => $o } ], [ 'ODM', { SEX => 'F', W => $o } ], [ 'ODM', { SEX => 'F', W => $number } ], [ 'ODM', { SEX => 'F', T => $o } ], [ 'ODM', { SEX => 'F', D => $o } ], [ 'ODM', { bird('ke') => $o } ]);
	foreach my $workers (0, 1)
	{
		my @ids = stage_anew('staging', map { { form => $_->[0], payload => $_->[1] } } @wrong);
		is(run_of('can', $workers), 'succeeded', "front ends, $workers workers: the run");
		foreach my $i (0 .. $#ids)
		{
			like(kinds_of($ids[$i]), qr/./, "front ends, $workers workers: response $i is found") unless $i == 11;
		}
	}
	search('front_ends');
	return;
}

# Every method of de-identification that there is, on answers that it suits and on such as it does not.
sub methods
{
	$look->query(q{SELECT epro_etl.register_form('DEI', '{"properties": {"note": {"type": "string"}, "day": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"},
		"whole": {"type": "integer"}, "real": {"type": "number"}, "t1": {"type": "string"}, "t2": {"type": "string"}, "t3": {"type": "string"}, "t4": {"type": "string"}, "t5": {"type": "string"},
		"t6": {"type": "string"}, "t7": {"type": "string"}, "born": {"type": "string", "format": "date"}, "year": {"type": "string", "format": "date"}}}')});
	$look->query('CREATE TABLE dei_sink (source_id bigint, subject_key text, visit text, authored timestamptz, note text, day text, at text, whole text, real text, t1 text, t2 text, t3 text, t4 text, t5 text, t6 text, t7 text,'
		  . ' born text, year text, run_id bigint)');
	$look->query(q{SELECT epro_etl.add_sink('can', 'DEI', 'dei_sink')});
	foreach my $rule (
		[ '/t1', 'redact', '{}' ], [ '/t2', 'substitute', '{"value": "x"}' ], [ '/t3', 'mask', '{"keep_last": 2}' ], [ '/t4', 'cryptoHash', '{}' ], [ '/t5', 'encrypt', '{}' ],
		[ '/t6', 'pseudonymize', '{}' ], [ '/t7', 'generalize', '{"zip": 3}' ], [ '/day', 'dateShift', '{}' ], [ '/at', 'dateShift', '{}' ], [ 'authored', 'dateShift', '{}' ],
		[ '/whole', 'perturb', '{"range": 1000000}' ], [ '/real', 'generalize', '{"bucket": 100000000}' ], [ '/born', 'generalize', '{"to": "age", "cap": 90}' ], [ '/year', 'generalize', '{"to": "year"}' ],
		[ 'subject', 'pseudonymize', '{}' ])
	{
		my ($path, $method, $params) = @$rule;
		my ($out, $error) = $look->try("SELECT epro_etl.set_deid('DEI', '$path', '$method', '$params')");

		next unless $error =~ /ERROR/;
		note("no method $method for $path here: " . sqlstate($error));
		$look->query(qq{SELECT epro_etl.set_deid('DEI', '$path', 'remove')}) if $path =~ m{/};
	}
	my %good = (day => $birth, at => "${birth}T00:00:00Z", whole => $own_number, real => $own_number, born => $birth, year => $birth, map { ("t$_" => bird('na')) } 1 .. 7);
	my @bad = map { { %good, $_ => { bird('ke') => bird('na') } }, { %good, $_ => /^t/ ? $own_number : bird('na') }, { %good, $_ => undef } } sort keys %good;
	foreach my $workers (0, 1)
	{
		my @ids = stage_anew('staging', map { { form => 'DEI', payload => payload($_) } } \%good, { %good, t7 => '03601' }, @bad);
		is(run_of('can', $workers), 'succeeded', "methods, $workers workers: the run");
		is($look->query("SELECT count(*) FROM dei_sink WHERE source_id = $ids[1]"), 1, "methods, $workers workers: a good response is loaded");
		isnt(kinds_of(@ids), '', "methods, $workers workers: a method that does not suit is found");
	}
	# what is kept of identifiers is kept here, or is not tried
	cmp_ok($look->query('SELECT count(*) FROM epro_etl.pseudonym'), '>', 0, 'methods: codes were made') if $look->query(q{SELECT to_regclass('epro_etl.pseudonym') IS NOT NULL}) eq 't';
	stage_anew('staging', map { { form => 'DEI', payload => payload($_) } } \%good, @bad);
	say_to(q{SELECT epro_etl.start_stream('can', '{"deidentify": 1, "normalise": 1, "validate": 1, "store": 1}')});
	ok(until_true($look, 'SELECT count(*) FROM staging', 0), 'methods, stream: all has left');
	say_to(q{SELECT epro_etl.stop_stream('can')});
	until_true($look, q{SELECT count(*) FROM epro_etl.stat_stream}, 0);
	search('methods');
	return;
}

# ---- a second server ----

# Its tables, and what is known of them here.
sub create_other
{
	return if $far;
	$far = create_far('far');
	$far->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_stat_statements, auto_explain'\nautovacuum = off\n$noisy" . "deadlock_timeout = '500ms'\n");
	$far->restart;
	$there = EproTest::Psql->new($far, options => $quiet, name => 'look');
	$there->query("CREATE ROLE etl LOGIN; CREATE TABLE ref (id int, code text); INSERT INTO ref VALUES (1, 'code'); CREATE TABLE can_far ($sink_columns, UNIQUE (note));"
		  . 'GRANT ALL ON can_far, ref TO etl');
	my ($host, $port) = ($far->host, $far->port);
	$look->query("CREATE EXTENSION postgres_fdw;
		CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', batch_size '100', connect_timeout '2', options '-c client_min_messages=error');
		CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'etl');
		CREATE FOREIGN TABLE far_ref (id int, code text) SERVER far OPTIONS (table_name 'ref')");
	return;
}

# A sink there, with a trigger that does something; "when" it does.
sub far_sink
{
	my ($with, $does, $when) = @_;
	sink_of("CREATE TABLE can_sink ($sink_columns); CREATE FOREIGN TABLE can_far ($sink_columns) SERVER far", q{SELECT epro_etl.add_sink('can', 'CAN', 'can_sink')}, $with);
	$there->query('TRUNCATE can_far; DROP TRIGGER IF EXISTS t ON can_far');
	return unless $does;
	$there->query("CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN $does; RETURN NEW; END\$\$");
	$there->query($when && $when eq 'commit' ? 'CREATE CONSTRAINT TRIGGER t AFTER INSERT ON can_far DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tell()' :
		  'CREATE TRIGGER t BEFORE INSERT ON can_far FOR EACH ROW EXECUTE FUNCTION tell()');
	return;
}

# What the other server knows; "may": kinds that may be in its log.
sub search_there
{
	my ($part, $offset, $may) = @_;
	absent(log_since($far, $offset), "$part: the other server's log", $may);
	absent($there->query('SELECT query FROM pg_stat_statements'), "$part: pg_stat_statements there");
	absent($there->query('SELECT t::text FROM can_far t'), "$part: the sink there", qr/^(?!$identifiers)/);
	return;
}

sub far
{
	create_other();
	my $offset = -s $far->logfile;
	my $tell = sub { "RAISE EXCEPTION 'not %', NEW USING ERRCODE = '$_[0]', DETAIL = NEW::text, HINT = NEW.note, CONSTRAINT = NEW.note, COLUMN = NEW.note" };

	# what has to be seen: a finding; or the run fails, or the outbox takes the rows
	my $finds = sub { my ($state) = @_; return sub { "succeeded constraint $state" } };
	my $away = sub { my ($required, $inline) = @_; return sub { ($_[0] ? $required : $_[1] ? 'succeeded' : $inline // 'succeeded') . ' ' } };

	foreach my $case (
		[ 'unique', undef, undef, $finds->('23505') ],
		(map { [ "trigger, $_", $tell->($_), undef, $finds->($_) ] } qw(P0001 22P02)),
		[ 'trigger, a name', q{EXECUTE 'SELECT ' || quote_ident(NEW.note)}, undef, $away->('42703') ],
		[ 'warning', q{RAISE WARNING 'not %', NEW}, undef, $finds->('23505') ],
		(map { [ "trigger, $_", $tell->($_), undef, $away->($_, /^40/ ? $_ : undef) ] } qw(57P01 40001 40P01 57014 55000 EP006 XX000)),
		[ 'dies', 'PERFORM pg_terminate_backend(pg_backend_pid())', undef, $away->('08006', '08000') ],
		[ 'at commit, P0001', $tell->('P0001'), 'commit', $finds->('P0001') ],
		[ 'at commit, 40001', $tell->('40001'), 'commit', $away->('40001') ])
	{
		my ($name, $does, $when, $right) = @$case;

		foreach my $way ([ 'required', "on_duplicate => 'reject'" ], [ 'not required', "on_duplicate => 'reject', required => false" ])
		{
			foreach my $workers (0, 1)
			{
				next if $when && !$workers;		# the caller's commit has the other server's own message, see README
				far_sink($way->[1], $does, $when);
				my @ids = stage_anew('staging', {}, {});
				my $end = run_of('can', $workers) . ' ' . kinds_of(@ids);
				is($end, $right->($way->[0] eq 'required', $workers), "far, $name, $way->[0], $workers workers: it was so");
				$there->query('DROP TRIGGER IF EXISTS t ON can_far; TRUNCATE can_far');
				say_to(q{SELECT epro_etl.deliver('can')});
			}
		}
	}

	# everybody waits for everybody there
	far_sink('', 'PERFORM pg_advisory_xact_lock_shared(77, 1)');
	$there->query(q{SELECT pg_advisory_lock(77, 1); SET deadlock_timeout = '30s'});
	stage_anew('staging', {});
	$caller->send(q{SELECT status FROM epro_etl.run('can', workers => 0)});
	until_true($there, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 1);
	$there->query('BEGIN; LOCK TABLE can_far; ROLLBACK; SELECT pg_advisory_unlock_all()');
	is(answered(), '40P01', 'far: deadlock there');

	# the other server is stopped, and what waits for it is refused then
	far_sink("on_duplicate => 'reject', required => false");
	$there->close;
	$far->stop('immediate');
	stage_anew('staging', {}, {});
	is(run_of('can', 1), 'succeeded', 'far: stopped, not required');
	is($look->query('SELECT count(*) FROM epro_etl.outbox'), 2, 'far: the outbox has them');
	search('far, away');
	$far->start;
	$there = EproTest::Psql->new($far, options => $quiet, name => 'look');
	is(say_to(q{SELECT epro_etl.deliver('can')}), 2, 'far: delivered');
	is($look->query('SELECT refused FROM epro_etl.outbox'), '23505', 'far: refused, from the outbox');
	$look->query('DELETE FROM epro_etl.outbox');

	# a stream, cut, whose other server refuses and dies
	foreach my $way ([ 'required', '' ], [ 'not required', "required => false" ])
	{
		far_sink($way->[1], $tell->('P0001'));
		stage_anew('staging', {}, { note => bird('bi', 20000) });
		say_to(q{SELECT epro_etl.start_stream('can', '{"deidentify": 1, "validate": 1, "store": 1}')});
		ok(until_true($look, 'SELECT count(*) FROM staging', 0), "far, stream, $way->[0]: all has left");
		$there->query('CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END$$');
		put('staging', {});
		my $end = time() + $EproTest::PATIENCE;
		sleep(0.05) until log_since($node, $searched) =~ /is away \(SQLSTATE/ || time() > $end;
		$there->query('DROP TRIGGER t ON can_far');
		ok(until_true($look, 'SELECT count(*) FROM staging', 0), "far, stream, $way->[0]: and again");
		say_to(q{SELECT * FROM epro_etl.stat_stream});
		say_to(q{SELECT epro_etl.stop_stream('can')});
		until_true($look, q{SELECT count(*) FROM epro_etl.stat_stream}, 0);
	}

	# who is asked there is slow, raises, and has none of it
	$look->query(q{SELECT epro_etl.add_lookup('CAN', 'asks', 'EXISTS (SELECT FROM public.far_ref r WHERE r.code IN (response.note, visit, subject))', timeout => '300 ms', on_timeout => 'reject')});
	far_sink('');
	foreach my $workers (0, 1)
	{
		my @ids = stage_anew('staging', {});
		is(run_of('can', $workers) . ': ' . kinds_of(@ids), 'succeeded: check asks', "far, lookup, $workers workers: says no");
		$there->query('BEGIN; LOCK TABLE ref');
		@ids = stage_anew('staging', {});
		is(run_of('can', $workers) . ': ' . kinds_of(@ids), 'succeeded: unanswered asks', "far, lookup, $workers workers: no answer");
		$there->query(q{ROLLBACK; ALTER TABLE ref RENAME TO ref_kept; CREATE VIEW ref AS SELECT id, (code || (1 / (id - 1)))::text AS code FROM ref_kept; GRANT SELECT ON ref TO etl});
		sleep(1.1);
		@ids = stage_anew('staging', {});
		is(run_of('can', $workers) . ': ' . kinds_of(@ids), 'succeeded: error asks', "far, lookup, $workers workers: an error there");
		$there->query('DROP VIEW ref; ALTER TABLE ref_kept RENAME TO ref');
	}
	$look->query(q{SELECT epro_etl.remove_edit_check('CAN', 'asks')});
	search('far');
	search_there('far', $offset, qr/^(?!$identifiers)/);
	return;
}

# As README says it is to be set there, for the role that loads.
sub far_terse
{
	create_other();
	my $terse = EproTest::Psql->new($far, options => $quiet);
	my %terse = (log_error_verbosity => 'terse', log_parameter_max_length => 0, log_parameter_max_length_on_error => 0, 'auto_explain.log_min_duration' => -1, debug_print_plan => 'off');
	$terse->query("ALTER ROLE etl SET $_ = '$terse{$_}'") foreach sort keys %terse;
	$terse->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'etl'});
	$terse->close;
	my $offset = -s $far->logfile;
	foreach my $workers (0, 1)
	{
		far_sink("on_duplicate => 'reject', required => false");
		my @ids = stage_anew('staging', {}, { payload => payload({ num => $number }) });
		is(run_of('can', $workers), 'succeeded', "far, terse, $workers workers: the run");
		is(kinds_of(@ids), 'constraint 23505', "far, terse, $workers workers: one is refused");
	}
	search('far, terse');
	search_there('far, terse', $offset);
	return;
}
