/* epro_etl 0.1.0: the SQL surface.  Run by CREATE EXTENSION epro_etl. */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION epro_etl" to load this file. \quit

DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'epro_etl needs a database in UTF8'
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Create the database with ENCODING ''UTF8''.';
    END IF;
END $$;

CREATE SCHEMA epro_etl;
COMMENT ON SCHEMA epro_etl IS 'epro_etl: loads ePRO and EDC responses from staging into clinical tables';

--
-- Configuration.  Rows are added and retired, never changed, so that the
-- ledger can name what a run used.
--

CREATE TABLE epro_etl.form (
    form_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL CHECK (name <> ''),
    version         text NOT NULL CHECK (version <> ''),
    definition      jsonb NOT NULL,
    registered_at   timestamptz NOT NULL DEFAULT now(),
    registered_by   text NOT NULL DEFAULT session_user,
    UNIQUE (name, version)
);
COMMENT ON TABLE epro_etl.form IS 'Registered form definitions, all versions; the newest of a name is current';

CREATE TABLE epro_etl.edit_check (
    check_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    form            text NOT NULL,
    check_name      text NOT NULL CHECK (check_name <> ''),
    expression      text NOT NULL,
    severity        text NOT NULL CHECK (severity IN ('error', 'warning', 'information')),
    condition       text,
    message         text,
    timeout         interval CHECK (timeout > '0'),
    on_timeout      text CHECK (on_timeout IN ('defer', 'reject', 'warn')),
    kind            text,
    params          jsonb,
    computes        boolean NOT NULL DEFAULT false,
    part_of         text,
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user,
    removed_at      timestamptz,
    removed_by      text,
    CHECK ((timeout IS NULL) = (on_timeout IS NULL))
);
CREATE UNIQUE INDEX edit_check_current ON epro_etl.edit_check (form, check_name) WHERE removed_at IS NULL;
COMMENT ON TABLE epro_etl.edit_check IS 'Edit checks of forms; those with removed_at are kept for the ledger and not evaluated';
COMMENT ON COLUMN epro_etl.edit_check.kind IS 'How it was declared: a kind of add_check(), or score; NULL: as the expression or query itself';
COMMENT ON COLUMN epro_etl.edit_check.params IS 'Parameters of its kind, which the expression was made from';
COMMENT ON COLUMN epro_etl.edit_check.computes IS 'Whether it is a score, whose expression gives the number for an item of its name';
COMMENT ON COLUMN epro_etl.edit_check.part_of IS 'The edit check that it was declared with, and goes with';
COMMENT ON COLUMN epro_etl.edit_check.timeout IS 'Of a lookup, how long its reference may take for an answer; NULL: an expression over the response alone';

CREATE TABLE epro_etl.deid_rule (
    rule_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    form            text NOT NULL,
    path            text NOT NULL,
    method          text NOT NULL,
    params          jsonb NOT NULL DEFAULT '{}',
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user,
    removed_at      timestamptz,
    removed_by      text
);
CREATE UNIQUE INDEX deid_rule_current ON epro_etl.deid_rule (form, path) WHERE removed_at IS NULL;
COMMENT ON TABLE epro_etl.deid_rule IS 'De-identification methods of items; those with removed_at are kept for the ledger and not applied';

-- the order of these columns, and the index, are known to pseudonym.c
CREATE TABLE epro_etl.pseudonym (
    domain          text NOT NULL CHECK (domain <> ''),
    study           text NOT NULL,
    original        text NOT NULL,
    -- what normalisation leaves alone, and a subject_key has room for
    code            text COLLATE "C" NOT NULL UNIQUE CHECK (code ~ '^[!-~]{1,64}$'),
    created_at      timestamptz NOT NULL DEFAULT now(),
    run_id          bigint
);
-- originals can be of any length: the backslashes are doubled for bytea to read, so it is of their bytes
CREATE UNIQUE INDEX pseudonym_original ON epro_etl.pseudonym
    (sha256(replace(octet_length(domain)::text || ':' || octet_length(study)::text || ':' || domain || study || original, '\', '\\')::bytea));
COMMENT ON TABLE epro_etl.pseudonym IS 'Random codes and what they stand for: identifies people, so it is for its owner alone; grant it to nobody';
COMMENT ON COLUMN epro_etl.pseudonym.domain IS 'Within which an original has one code: of a subject "subject", of an item its form and path, unless set_deid() names another';
COMMENT ON COLUMN epro_etl.pseudonym.study IS 'Of the response; empty where that names none';
COMMENT ON COLUMN epro_etl.pseudonym.run_id IS 'The run that made the code; NULL: its owner has entered it';

CREATE TABLE epro_etl.severity_overlay (
    overlay_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    form            text NOT NULL,
    location        text NOT NULL CHECK (location <> ''),
    severity        text NOT NULL CHECK (severity IN ('error', 'warning', 'information', 'off')),
    reason          text,
    valid_from      timestamptz NOT NULL DEFAULT '-infinity',
    valid_until     timestamptz NOT NULL DEFAULT 'infinity' CHECK (valid_until > valid_from),
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user,
    removed_at      timestamptz,
    removed_by      text,
    CHECK (severity <> 'off' OR reason <> '' AND reason IS NOT NULL)
);
CREATE INDEX severity_overlay_current ON epro_etl.severity_overlay (form) WHERE removed_at IS NULL;
COMMENT ON TABLE epro_etl.severity_overlay IS 'Severities other than the form''s or the edit check''s own; those with removed_at are kept for the ledger';
COMMENT ON COLUMN epro_etl.severity_overlay.location IS 'JSON Pointer of a rule in the form''s definition, or the name of an edit check';
COMMENT ON COLUMN epro_etl.severity_overlay.valid_from IS 'Runs that begin from then on, and before valid_until, go by it';

CREATE TABLE epro_etl.batch_threshold (
    threshold_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    form            text NOT NULL,
    check_name      text NOT NULL CHECK (check_name <> ''),
    rule            text NOT NULL CHECK (rule <> ''),
    max_ratio       double precision NOT NULL CHECK (max_ratio >= 0 AND max_ratio < 1),
    minimum         bigint NOT NULL CHECK (minimum > 0),
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user,
    removed_at      timestamptz,
    removed_by      text
);
CREATE UNIQUE INDEX batch_threshold_current ON epro_etl.batch_threshold (form, check_name) WHERE removed_at IS NULL;
COMMENT ON TABLE epro_etl.batch_threshold IS 'Shares of a form''s responses that may break a rule before a run is held; those with removed_at are kept for the ledger';
COMMENT ON COLUMN epro_etl.batch_threshold.rule IS 'Name of an edit check or lookup, or where the findings of a keyword are, and the keyword: /age/maximum';
COMMENT ON COLUMN epro_etl.batch_threshold.max_ratio IS 'Share that may, from 0 to below 1: a run in which more do is held before anything has left the source';
COMMENT ON COLUMN epro_etl.batch_threshold.minimum IS 'Responses of the form that a run must have judged for the share to say something';

CREATE TABLE epro_etl.pipeline (
    pipeline_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (octet_length(name) BETWEEN 1 AND 63),
    source          regclass NOT NULL,
    columns         jsonb NOT NULL,
    options         jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    created_by      text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE epro_etl.pipeline IS 'Pipelines: a source and which of its columns carry what';

CREATE TABLE epro_etl.sink (
    sink_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline_id     bigint NOT NULL REFERENCES epro_etl.pipeline ON DELETE CASCADE,
    form            text NOT NULL,
    target          regclass NOT NULL,
    shape           text NOT NULL CHECK (shape IN ('wide', 'long')),
    columns         jsonb,
    matched         text[] NOT NULL,
    condition       text,
    on_duplicate    text NOT NULL CHECK (on_duplicate IN ('reject', 'ignore', 'latest')),
    required        boolean NOT NULL,
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user,
    UNIQUE (pipeline_id, form, target)
);
COMMENT ON COLUMN epro_etl.sink.matched IS 'Columns that took something when the sink was added: a run refuses a sink that has lost one';
COMMENT ON COLUMN epro_etl.sink.shape IS 'wide: a row a response, a column an item; long: a row an item that is answered';
COMMENT ON COLUMN epro_etl.sink.on_duplicate IS 'reject: a response of which the sink holds a row already goes to quarantine; ignore: the row that is there stays, and the response counts as loaded; latest: the row that was authored later stands, and the earlier one goes to superseded';
COMMENT ON COLUMN epro_etl.sink.required IS 'Whether a response needs this sink to be loaded';
COMMENT ON TABLE epro_etl.sink IS 'Sinks: where the responses of a form of a pipeline go';

CREATE TABLE epro_etl.stream (
    pipeline_id     bigint PRIMARY KEY REFERENCES epro_etl.pipeline ON DELETE CASCADE,
    stages          jsonb,
    queue_size      integer,
    login           regrole NOT NULL,
    role            regrole NOT NULL,
    started_at      timestamptz NOT NULL DEFAULT now(),
    context         jsonb
);
COMMENT ON COLUMN epro_etl.stream.context IS 'Values of the request that started it, for the ledger of its generations';
CREATE FUNCTION epro_etl.refuse_stream() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    held record;
BEGIN
    SELECT t.check_name, t.form INTO held FROM epro_etl.sink s JOIN epro_etl.batch_threshold t USING (form)
        WHERE s.pipeline_id = NEW.pipeline_id AND t.removed_at IS NULL ORDER BY t.threshold_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a stream has no batch that batch threshold "%" of form "%" could hold', held.check_name, held.form
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Load the pipeline with epro_etl.run(), or take the threshold off with epro_etl.remove_edit_check().';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION epro_etl.refuse_stream() IS 'Refuses the stream of a pipeline that has a batch threshold';
CREATE TRIGGER refuse_stream BEFORE INSERT OR UPDATE ON epro_etl.stream FOR EACH ROW EXECUTE FUNCTION epro_etl.refuse_stream();
COMMENT ON TABLE epro_etl.stream IS 'Streams that are to be up; written by start_stream() and stop_stream() alone, since it says as whom a stream acts';

CREATE TABLE epro_etl.context_server (
    server          text PRIMARY KEY,
    settings        regclass NOT NULL,
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user
);
COMMENT ON COLUMN epro_etl.context_server.settings IS 'Foreign table over pg_settings of that server; when it is dropped, or another, the server is not told any more';
COMMENT ON TABLE epro_etl.context_server IS 'Servers of postgres_fdw that are told the remaining time and the request_id of what they are asked';

CREATE TABLE epro_etl.key_version (
    version         integer PRIMARY KEY CHECK (version > 0),
    check_value     bytea NOT NULL,
    state           text NOT NULL DEFAULT 'current' CHECK (state IN ('current', 'superseded')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    created_by      text NOT NULL DEFAULT session_user,
    note            text
);
COMMENT ON TABLE epro_etl.key_version IS 'Keyring: versions of the pseudonyms'' keys, never a key; new runs take the newest; written by the first run and rotate_key() alone';
COMMENT ON COLUMN epro_etl.key_version.check_value IS 'By which a run tells that it has the same key; made with a key that makes nothing else';

--
-- Ledger
--

CREATE TABLE epro_etl.run_ledger (
    run_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline        text NOT NULL,
    source          text NOT NULL,
    status          text CHECK (status IN ('succeeded', 'failed', 'canceled', 'timed out', 'stopped')),
    reason          text,
    dry_run         boolean NOT NULL,
    workers         integer NOT NULL,
    batch_size      integer NOT NULL,
    session_user_name text NOT NULL,
    current_user_name text NOT NULL,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    remaining       bigint,
    sqlstate        text,
    message         text,
    failed_worker   integer,
    failed_chunk    bigint,
    versions        jsonb NOT NULL,
    stream          boolean NOT NULL DEFAULT false,
    context         jsonb,
    key_version     integer
);
COMMENT ON COLUMN epro_etl.run_ledger.key_version IS 'Of the pseudonyms that the run makes; see epro_etl.key_version';
COMMENT ON COLUMN epro_etl.run_ledger.context IS 'Values of the request that started the run, as context_set() has them';
COMMENT ON COLUMN epro_etl.run_ledger.stream IS 'A generation of a stream: from its start to its stop, a change of its configuration, or a failure';
COMMENT ON TABLE epro_etl.run_ledger IS 'What each run was asked and how it ended; no status: it has not ended by itself, see run_history';

CREATE TABLE epro_etl.run_worker (
    run_id          bigint NOT NULL REFERENCES epro_etl.run_ledger,
    worker          integer NOT NULL,
    pid             integer NOT NULL,
    claimed         bigint NOT NULL DEFAULT 0,
    loaded          bigint NOT NULL DEFAULT 0,
    warned          bigint NOT NULL DEFAULT 0,
    rejected        bigint NOT NULL DEFAULT 0,
    duplicate       bigint NOT NULL DEFAULT 0,
    deferred        bigint NOT NULL DEFAULT 0,
    skipped         bigint NOT NULL DEFAULT 0,
    undeclared      bigint NOT NULL DEFAULT 0,
    chunks          bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, worker)
) WITH (fillfactor = 50);
COMMENT ON TABLE epro_etl.run_worker IS 'Counts of each worker of each run, written in the transaction of each chunk; worker 0 is the calling session';
COMMENT ON COLUMN epro_etl.run_worker.skipped IS 'Edit checks and rules that could not be evaluated';
COMMENT ON COLUMN epro_etl.run_worker.undeclared IS 'Keys of payloads that no item of the form declares: they reach no sink';

-- the order of these columns is known to account.c
CREATE TABLE epro_etl.finding (
    run_id          bigint NOT NULL,
    source_id       text,
    form            text,
    location        text,
    rule            text NOT NULL,
    kind            text NOT NULL,
    severity        text NOT NULL,
    message         text NOT NULL
);
CREATE INDEX finding_response ON epro_etl.finding (run_id, source_id);
COMMENT ON TABLE epro_etl.finding IS 'What did not hold for which response; never the answer itself';
COMMENT ON COLUMN epro_etl.finding.location IS 'JSON Pointer into the payload; the empty pointer is the whole response, NULL a column beside the payload';
COMMENT ON COLUMN epro_etl.finding.form IS 'NULL when the response names no form of the pipeline; what it names is in quarantine';
COMMENT ON COLUMN epro_etl.finding.rule IS 'Keyword of the form, name of the edit check, or constraint of the sink';
COMMENT ON COLUMN epro_etl.finding.kind IS 'schema, check, error (a check raised one), not evaluated (a check was NULL), unanswered (a lookup was not, in time), constraint, conversion, payload, form, subject or deidentify';

CREATE TABLE epro_etl.quarantine (
    quarantine_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id          bigint NOT NULL,
    pipeline        text NOT NULL,
    source_id       text,
    form            text,
    original        jsonb NOT NULL,
    first_try       timestamptz NOT NULL,
    last_try        timestamptz NOT NULL,
    tries           integer NOT NULL
);
CREATE INDEX quarantine_response ON epro_etl.quarantine (run_id, source_id);
COMMENT ON TABLE epro_etl.quarantine IS 'Rejected responses, whole and identified, until they are corrected and requeued; grant with care';
COMMENT ON COLUMN epro_etl.quarantine.original IS 'The staging row: an object of its columns; a column that was NULL is left out';

-- the order of these columns is known to account.c
CREATE TABLE epro_etl.superseded (
    superseded_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sink_id         bigint NOT NULL,
    target          text NOT NULL,
    run_id          bigint NOT NULL,
    source_id       text,
    earlier_run_id  bigint,
    earlier_source_id text,
    "row"           jsonb NOT NULL,
    superseded_at   timestamptz NOT NULL
);
CREATE INDEX superseded_response ON epro_etl.superseded (run_id, source_id);
CREATE INDEX superseded_earlier ON epro_etl.superseded (earlier_run_id);
COMMENT ON TABLE epro_etl.superseded IS 'Rows of sinks that a response authored later has replaced, whole; for sinks with on_duplicate latest';
COMMENT ON COLUMN epro_etl.superseded.target IS 'The sink, as it was called then';
COMMENT ON COLUMN epro_etl.superseded.run_id IS 'Of the response that took the row''s place, as source_id';
COMMENT ON COLUMN epro_etl.superseded.earlier_run_id IS 'Of the row that was there, as earlier_source_id, if the sink has a column for it';
COMMENT ON COLUMN epro_etl.superseded."row" IS 'The row that was there: an object of its columns, de-identified as the sink is; a column that was NULL is left out';

CREATE TABLE epro_etl.requeued (
    pipeline        text NOT NULL,
    source_id       text NOT NULL,
    first_try       timestamptz NOT NULL,
    tries           integer NOT NULL,
    PRIMARY KEY (pipeline, source_id)
);
COMMENT ON TABLE epro_etl.requeued IS 'Earlier tries of responses that went from quarantine back to staging';

-- the order of these columns is known to outbox.c
CREATE TABLE epro_etl.outbox (
    outbox_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sink_id         bigint NOT NULL REFERENCES epro_etl.sink,
    run_id          bigint,
    source_id       text,
    "row"           jsonb NOT NULL,
    since           timestamptz NOT NULL,
    refused         text
);
CREATE INDEX outbox_sink ON epro_etl.outbox (sink_id);
CREATE INDEX outbox_waiting ON epro_etl.outbox (sink_id, outbox_id) WHERE refused IS NULL;
COMMENT ON TABLE epro_etl.outbox IS 'De-identified rows for sinks that are not required and were away; deliver() and streams send them on';
COMMENT ON COLUMN epro_etl.outbox.refused IS 'SQLSTATE with which the sink refused the row; it is not tried again until this is NULL';

--
-- What the C code does
--

CREATE FUNCTION epro_etl.compile_form(form text) RETURNS void
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_compile_form';
COMMENT ON FUNCTION epro_etl.compile_form(text) IS 'Compiles the current version of a form with its rules; raises the error of what does not fit';

CREATE FUNCTION epro_etl.compile_pipeline(pipeline text) RETURNS void
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_compile_pipeline';
COMMENT ON FUNCTION epro_etl.compile_pipeline(text) IS 'Compiles a pipeline as a run would, as the current user; raises the error of what does not fit';

CREATE FUNCTION epro_etl.form_items(form text, OUT name text, OUT location text, OUT type regtype,
                                    OUT required boolean, OUT deidentify text) RETURNS SETOF record
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_form_items';
COMMENT ON FUNCTION epro_etl.form_items(text) IS 'The items of the current version of a form: name, JSON Pointer, SQL type, whether required, de-identification method';

CREATE FUNCTION epro_etl.form_not_imported(form text, OUT location text, OUT construct text, OUT reason text) RETURNS SETOF record
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_form_not_imported';
COMMENT ON FUNCTION epro_etl.form_not_imported(text) IS
    'What of the current version of a form no rule was made of: JSON Pointer of the item (empty: the form), construct as its standard calls it, reason';

CREATE FUNCTION epro_etl.form_rules(form text, OUT stage text, OUT location text, OUT rule text, OUT severity text, OUT says text)
    RETURNS SETOF record
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_form_rules';
COMMENT ON FUNCTION epro_etl.form_rules(text) IS 'What the stages do for a form''s current version, in their order; see explain_form()';

CREATE FUNCTION epro_etl.validate(form text, payload jsonb, study text DEFAULT NULL, visit text DEFAULT NULL,
    authored timestamptz DEFAULT NULL, OUT location text, OUT rule text, OUT kind text, OUT severity text, OUT message text)
    RETURNS SETOF record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_validate';
COMMENT ON FUNCTION epro_etl.validate(text, jsonb, text, text, timestamptz) IS
    'The findings that a run would make of one response by the form''s current version and rules; for authors and tests. Stores nothing';

CREATE FUNCTION epro_etl.run(
        pipeline text, workers integer DEFAULT NULL, max_rejects bigint DEFAULT NULL,
        max_reject_ratio double precision DEFAULT NULL, timeout interval DEFAULT NULL,
        dry_run boolean DEFAULT false, reason text DEFAULT NULL,
        OUT run_id bigint, OUT status text, OUT claimed bigint, OUT loaded bigint, OUT warned bigint,
        OUT rejected bigint, OUT duplicate bigint, OUT deferred bigint, OUT remaining bigint,
        OUT workers integer, OUT elapsed interval) RETURNS record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_run';
COMMENT ON FUNCTION epro_etl.run(text, integer, bigint, double precision, interval, boolean, text) IS
    'Loads a pipeline''s staged responses with background workers and waits for all of them; workers => 0 runs in the calling transaction';

CREATE FUNCTION epro_etl.start_run(
        pipeline text, workers integer DEFAULT NULL, max_rejects bigint DEFAULT NULL,
        max_reject_ratio double precision DEFAULT NULL, timeout interval DEFAULT NULL,
        dry_run boolean DEFAULT false, reason text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_start_run';
COMMENT ON FUNCTION epro_etl.start_run(text, integer, bigint, double precision, interval, boolean, text) IS
    'Starts a run and returns its number; the run belongs to the session and ends with it';

CREATE FUNCTION epro_etl.wait_run(
        run_id bigint, timeout interval DEFAULT NULL,
        OUT run_id bigint, OUT status text, OUT claimed bigint, OUT loaded bigint, OUT warned bigint,
        OUT rejected bigint, OUT duplicate bigint, OUT deferred bigint, OUT remaining bigint,
        OUT workers integer, OUT elapsed interval) RETURNS record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_wait_run';

CREATE PROCEDURE epro_etl.run_job(
        pipeline text, workers integer DEFAULT NULL, max_rejects bigint DEFAULT NULL,
        max_reject_ratio double precision DEFAULT NULL, timeout interval DEFAULT NULL,
        dry_run boolean DEFAULT false, reason text DEFAULT NULL)
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'epro_etl_run_job';
COMMENT ON PROCEDURE epro_etl.run_job(text, integer, bigint, double precision, interval, boolean, text) IS
    'Runs a pipeline for a scheduler: waits without holding a snapshot; raises an error unless the run succeeded (a warning where it stopped itself inside the calling transaction)';

CREATE FUNCTION epro_etl.rotate_key(note text DEFAULT NULL) RETURNS integer
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_rotate_key';
COMMENT ON FUNCTION epro_etl.rotate_key(text) IS
    'Enters the next version of the pseudonyms'' keys and returns it: new runs, and streams from their next generation on, make other pseudonyms; see repseudonymise()';

CREATE PROCEDURE epro_etl.repseudonymise(target regclass)
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'epro_etl_repseudonymise';
COMMENT ON PROCEDURE epro_etl.repseudonymise(regclass) IS
    'Brings the subject_key of a sink''s rows of older key versions to the newest, some blocks a transaction; for the sink''s owner; whoever calls it again after it was broken off goes on with the rest';

CREATE FUNCTION epro_etl.progress(
        OUT run_id bigint, OUT pipeline text, OUT worker integer, OUT pid integer, OUT phase text,
        OUT tuples_processed bigint, OUT tuples_excluded bigint, OUT blocks_done bigint,
        OUT blocks_total bigint, OUT since timestamptz, OUT stage text) RETURNS SETOF record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_progress';
COMMENT ON FUNCTION epro_etl.progress() IS 'The workers of the runs and streams in this database; read it through the view stat_progress';

CREATE FUNCTION epro_etl.pipeline_source(pipeline text) RETURNS regclass
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_pipeline_source';
COMMENT ON FUNCTION epro_etl.pipeline_source(text) IS 'The staging table of a pipeline';

CREATE FUNCTION epro_etl.launch_stream(pipeline text, stages jsonb, queue_size integer) RETURNS boolean
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_launch_stream';
COMMENT ON FUNCTION epro_etl.launch_stream(text, jsonb, integer) IS
    'What start_stream() does, without the trigger on the source; true if the stream was not up';

CREATE FUNCTION epro_etl.stop_stream(pipeline text, drain boolean DEFAULT true, timeout interval DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_stop_stream';
COMMENT ON FUNCTION epro_etl.stop_stream(text, boolean, interval) IS
    'Stops a stream and waits until it has ended: with drain when what is on its way has arrived, after timeout at once; true if there was one';

CREATE FUNCTION epro_etl.stream_status(
        OUT pipeline_id bigint, OUT state text, OUT since timestamptz, OUT pid integer, OUT run_id bigint,
        OUT generations bigint, OUT failures integer, OUT next_try timestamptz, OUT sqlstate text, OUT message text,
        OUT workers integer, OUT workers_wanted integer, OUT stored bigint, OUT in_flight bigint, OUT held bigint,
        OUT oldest timestamptz, OUT latency_p50_ms double precision, OUT latency_p99_ms double precision,
        OUT groups integer) RETURNS SETOF record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_stream_status';
COMMENT ON FUNCTION epro_etl.stream_status() IS 'The streams of this database, from shared memory; read it through the view stat_stream';

CREATE FUNCTION epro_etl.channel_status(
        OUT pipeline_id bigint, OUT channel integer, OUT stage text, OUT depth integer, OUT capacity integer, OUT sent bigint,
        OUT received bigint, OUT waits_for_room bigint, OUT waits_for_rows bigint, OUT senders integer,
        OUT receivers integer, OUT closed boolean) RETURNS SETOF record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_channel_status';
COMMENT ON FUNCTION epro_etl.channel_status() IS 'The channels of the streams of this database, from shared memory; read it through the view stat_channel';

CREATE FUNCTION epro_etl.deliver(pipeline text) RETURNS bigint
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_deliver';
COMMENT ON FUNCTION epro_etl.deliver(text) IS
    'Sends what the outbox holds for a pipeline''s sinks, in the calling transaction, and returns the number of rows; a running stream does so by itself';

CREATE FUNCTION epro_etl.wake_stream() RETURNS trigger
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_wake_stream';
COMMENT ON FUNCTION epro_etl.wake_stream() IS 'Statement trigger of a source: when the transaction commits, the streams that read it are woken';

CREATE FUNCTION epro_etl.with_timeout(timeout interval, query text) RETURNS SETOF record
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_with_timeout';
COMMENT ON FUNCTION epro_etl.with_timeout(interval, text) IS
    'Runs a query under a deadline of its own, within that of the caller; when it is over, raises EP001, which can be caught, and rolls back what the query did';

CREATE FUNCTION epro_etl.context_deadline() RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'epro_etl_context_deadline';
COMMENT ON FUNCTION epro_etl.context_deadline() IS
    'When the call at hand has to end: the earliest of statement_timeout, of the run''s timeout and of those of with_timeout() around it; NULL: never';

CREATE FUNCTION epro_etl.context_set(key text, value text) RETURNS void
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_context_set';
COMMENT ON FUNCTION epro_etl.context_set(text, text) IS
    'Sets a value of the request at hand until the transaction ends, such as request_id, actor, reason; NULL takes it away. No patient data';

CREATE FUNCTION epro_etl.context_get(key text) RETURNS text
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_context_get';
COMMENT ON FUNCTION epro_etl.context_get(text) IS 'A value of the request at hand; NULL: not set';

CREATE FUNCTION epro_etl.context_server_of(settings regclass) RETURNS text
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_context_server_of';
COMMENT ON FUNCTION epro_etl.context_server_of(regclass) IS
    'The server that a foreign table can tell: one over pg_catalog.pg_settings with the columns name, setting and reset_val, all text, and nothing more; NULL: it cannot';

--
-- What edit checks can call: pure, and without an error for any text
--

CREATE FUNCTION epro_etl.partial_date_earliest(partial text) RETURNS date
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_earliest';
COMMENT ON FUNCTION epro_etl.partial_date_earliest(text) IS
    'The first day that a partial date may be: 2012, 2012-05, 2012-05-UN, 2012-UNK-UNK, 2012---; NULL when it cannot be read';

CREATE FUNCTION epro_etl.partial_date_latest(partial text) RETURNS date
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_latest';
COMMENT ON FUNCTION epro_etl.partial_date_latest(text) IS 'The last day that a partial date may be; NULL when it cannot be read';

CREATE FUNCTION epro_etl.partial_date_precision(partial text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_precision';
COMMENT ON FUNCTION epro_etl.partial_date_precision(text) IS 'How far a partial date is known: year, month or day; NULL when it cannot be read';

CREATE FUNCTION epro_etl.partial_date_before(a text, b text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_before';
COMMENT ON FUNCTION epro_etl.partial_date_before(text, text) IS 'Is one partial date before another? NULL while both are possible';

CREATE FUNCTION epro_etl.partial_date_after(a text, b text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_after';
COMMENT ON FUNCTION epro_etl.partial_date_after(text, text) IS 'Is one partial date after another? NULL while both are possible';

CREATE FUNCTION epro_etl.partial_date_not_before(a text, b text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_not_before';
COMMENT ON FUNCTION epro_etl.partial_date_not_before(text, text) IS 'Is one partial date on another or after it? NULL while both are possible';

CREATE FUNCTION epro_etl.partial_date_not_after(a text, b text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_not_after';
COMMENT ON FUNCTION epro_etl.partial_date_not_after(text, text) IS 'Is one partial date on another or before it? NULL while both are possible';

CREATE FUNCTION epro_etl.partial_date_same(a text, b text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_partial_date_same';
COMMENT ON FUNCTION epro_etl.partial_date_same(text, text) IS 'Are two partial dates the same day? NULL while both are possible';

CREATE FUNCTION epro_etl.study_day(date date, reference date) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'epro_etl_study_day';
COMMENT ON FUNCTION epro_etl.study_day(date, date) IS 'Study day: the reference is day 1, the day before it -1; there is no day 0';

--
-- Views
--

CREATE VIEW epro_etl.stat_progress AS SELECT * FROM epro_etl.progress();
COMMENT ON VIEW epro_etl.stat_progress IS 'Live: a row a worker of each run and stream in this database, from shared memory';

CREATE VIEW epro_etl.stat_stream AS
SELECT p.name AS pipeline, coalesce(t.state, 'not running') AS state, t.since, t.pid, t.run_id, t.generations,
       t.workers, t.workers_wanted, t.stored, t.in_flight, t.held,
       clock_timestamp() - t.oldest AS lag, t.latency_p50_ms, t.latency_p99_ms,
       t.failures, t.next_try, t.sqlstate, t.message, s.stages, s.queue_size, s.login, s.role, s.started_at
FROM epro_etl.stream s
JOIN epro_etl.pipeline p USING (pipeline_id)
LEFT JOIN epro_etl.stream_status() t USING (pipeline_id);
COMMENT ON VIEW epro_etl.stat_stream IS
    'Live: a row a stream that is to be up: its state (starting, running, draining, waiting, down, not running), what it has stored, lag and latency';

CREATE VIEW epro_etl.stat_channel AS
SELECT p.name AS pipeline, c.channel, c.stage, c.depth, c.capacity, c.sent, c.received, c.waits_for_room, c.waits_for_rows,
       c.senders, c.receivers, c.closed
FROM epro_etl.channel_status() c
JOIN epro_etl.pipeline p USING (pipeline_id);
COMMENT ON VIEW epro_etl.stat_channel IS 'Live: a row a channel of each stream, in flow order, with the stage at which the group begins that receives from it';

CREATE VIEW epro_etl.run_history AS
SELECT l.run_id, l.pipeline, l.source,
       coalesce(l.status, CASE WHEN EXISTS (
            SELECT FROM pg_catalog.pg_locks k
            WHERE k.locktype = 'advisory' AND k.objsubid = 3
              AND k.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
              AND k.classid::bigint = l.run_id >> 32 AND k.objid::bigint = l.run_id & 4294967295)
            THEN 'running' ELSE 'crashed' END) AS status,
       w.claimed, w.loaded, w.warned, w.rejected, w.duplicate, w.deferred, w.skipped, w.undeclared,
       l.remaining, w.workers, w.chunks, l.dry_run, l.reason, l.batch_size,
       l.session_user_name, l.current_user_name, l.started_at, l.finished_at,
       l.finished_at - l.started_at AS elapsed,
       l.sqlstate, l.message, l.failed_worker, l.failed_chunk, l.versions, l.stream, l.context, l.key_version
FROM epro_etl.run_ledger l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(w.claimed), 0)::bigint AS claimed, coalesce(sum(w.loaded), 0)::bigint AS loaded,
           coalesce(sum(w.warned), 0)::bigint AS warned, coalesce(sum(w.rejected), 0)::bigint AS rejected,
           coalesce(sum(w.duplicate), 0)::bigint AS duplicate, coalesce(sum(w.deferred), 0)::bigint AS deferred,
           coalesce(sum(w.skipped), 0)::bigint AS skipped, coalesce(sum(w.undeclared), 0)::bigint AS undeclared, coalesce(sum(w.chunks), 0)::bigint AS chunks,
           count(*) FILTER (WHERE w.worker > 0)::integer AS workers
    FROM epro_etl.run_worker w WHERE w.run_id = l.run_id) w;
COMMENT ON VIEW epro_etl.run_history IS 'A row a run: status (running, succeeded, failed, canceled, timed out, stopped, crashed), counts, who, why, which versions';

--
-- Configuration functions: write down, then let the compiler judge
--

CREATE FUNCTION epro_etl.tell_unstored(pipeline text, form text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    lost text;
BEGIN
    SELECT string_agg(i.name, ', ' ORDER BY i.name) INTO lost
        FROM epro_etl.form_items(tell_unstored.form) i
        WHERE i.deidentify <> 'remove' AND NOT EXISTS (
            SELECT FROM epro_etl.pipeline p JOIN epro_etl.sink s USING (pipeline_id)
            WHERE p.name = tell_unstored.pipeline AND s.form = tell_unstored.form AND s.shape = 'long'
        ) AND NOT EXISTS (
            SELECT FROM epro_etl.pipeline p
            JOIN epro_etl.sink s USING (pipeline_id)
            JOIN pg_attribute a ON a.attrelid = s.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
            WHERE p.name = tell_unstored.pipeline AND s.form = tell_unstored.form
              AND lower(coalesce(s.columns ->> a.attname::text, a.attname)) = lower(i.name));
    IF lost IS NOT NULL THEN
        RAISE NOTICE 'items of form "%" that no sink of pipeline "%" has a column for: %', form, pipeline, lost
            USING DETAIL = 'Their answers are judged and not stored.';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.tell_unstored(text, text) IS 'Raises a NOTICE that names the items of a form that no sink of a pipeline stores; a long sink stores all';

CREATE FUNCTION epro_etl.register_form(name text, definition jsonb, version text DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    current epro_etl.form;
    given text := register_form.version;
    pipe text;
    lost text;
BEGIN
    IF register_form.name IS NULL OR register_form.definition IS NULL THEN
        RAISE EXCEPTION 'name and definition must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    -- two sessions must not both make the next version
    PERFORM pg_advisory_xact_lock(hashtextextended('epro_etl.form ' || register_form.name, 0));
    SELECT * INTO current FROM epro_etl.form f WHERE f.name = register_form.name ORDER BY f.form_id DESC LIMIT 1;
    IF current.definition = register_form.definition AND coalesce(given, current.version) = current.version THEN
        RETURN current.version;
    END IF;
    IF register_form.name = '' OR given = '' THEN
        RAISE EXCEPTION 'name and version must not be empty' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF given IS NULL THEN
        SELECT (coalesce(max(f.version::bigint), 0) + 1)::text INTO given
            FROM epro_etl.form f WHERE f.name = register_form.name AND f.version ~ '^[0-9]{1,17}$';
    END IF;
    IF EXISTS (SELECT FROM epro_etl.form f WHERE f.name = register_form.name AND f.version = given) THEN
        RAISE EXCEPTION 'form "%" already has a version "%", which is not this one or not the current one', register_form.name, given
            USING ERRCODE = 'duplicate_object', HINT = 'Give the definition a new version.';
    END IF;
    INSERT INTO epro_etl.form (name, version, definition) VALUES (register_form.name, given, register_form.definition);
    PERFORM epro_etl.compile_form(register_form.name);
    PERFORM epro_etl.thresholds_fit(register_form.name, '/%');
    SELECT string_agg(DISTINCT format('%s at "%s" (%s)', n.construct, n.location, n.reason), '; ') INTO lost
        FROM epro_etl.form_not_imported(register_form.name) n;
    IF lost IS NOT NULL THEN
        RAISE NOTICE 'not imported from the definition of form "%": %', register_form.name, lost
            USING DETAIL = 'No rule was made of these.', HINT = 'State what matters as an edit check with epro_etl.add_edit_check().';
    END IF;
    FOR pipe IN SELECT p.name FROM epro_etl.pipeline p
                WHERE EXISTS (SELECT FROM epro_etl.sink s WHERE s.pipeline_id = p.pipeline_id AND s.form = register_form.name)
                ORDER BY p.name LOOP
        PERFORM epro_etl.tell_unstored(pipe, register_form.name);
        BEGIN
            PERFORM epro_etl.compile_pipeline(pipe);
        EXCEPTION
            WHEN insufficient_privilege THEN NULL;  -- who registers forms need not be who runs pipelines
            WHEN OTHERS THEN
                RAISE WARNING 'pipeline "%" cannot run with this version: %', pipe, SQLERRM;
        END;
    END LOOP;
    RETURN given;
END $$;
COMMENT ON FUNCTION epro_etl.register_form(text, jsonb, text) IS
    'Registers a JSON Schema (2020-12), or a FHIR Questionnaire (R4), as a form''s new current version and returns the version; an unsupported keyword is refused with its JSON Pointer';

CREATE FUNCTION epro_etl.thresholds_fit(form text, rules text DEFAULT '%') RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    definition jsonb;
    lost record;
BEGIN
    SELECT f.definition INTO definition FROM epro_etl.form f WHERE f.name = thresholds_fit.form ORDER BY f.form_id DESC LIMIT 1;
    SELECT t.check_name, t.rule INTO lost FROM epro_etl.batch_threshold t
        WHERE t.form = thresholds_fit.form AND t.rule LIKE rules AND t.removed_at IS NULL AND NOT CASE WHEN t.rule LIKE '/%' THEN
            EXISTS (SELECT FROM regexp_match(t.rule, '^(.*)/([^/]*)$') m (part),
                         -- the innermost item there, and where the definition has it
                         LATERAL (SELECT i.location, i.required FROM epro_etl.form_items(t.form) i WHERE starts_with(part[1] || '/', i.location || '/')
                                  UNION ALL SELECT '', false ORDER BY location DESC LIMIT 1) i,
                         replace(i.location, '/', '/properties/') here
                    WHERE CASE WHEN definition ->> 'resourceType' IN ('Questionnaire', 'Bundle') THEN i.location = part[1]
                               ELSE part[2] = 'required' AND i.location = part[1] AND i.required
                                    OR EXISTS (SELECT FROM epro_etl.form_rules(t.form) r WHERE r.stage = 'validate' AND r.rule = part[2]
                                                  AND (starts_with(r.location, here || '/') OR r.location ~ '^/([$]defs|definitions)/')
                                                  -- deeper than any item: an element, or a key that is not declared
                                                  AND (i.location = part[1] OR r.location ~ '/(items|prefixItems|contains|\w+Properties|unevaluatedItems|[$]defs|definitions)/')) END)
        ELSE EXISTS (SELECT FROM epro_etl.edit_check c WHERE c.form = t.form AND c.check_name = t.rule AND c.removed_at IS NULL AND NOT c.computes) END
        ORDER BY t.threshold_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'form "%" has no rule "%"', form, lost.rule USING ERRCODE = 'undefined_object',
            DETAIL = format('Batch threshold "%s" counts the responses that break it.', lost.check_name),
            HINT = 'Name an edit check, a lookup, or a keyword by the location and rule of its findings, such as "/age/maximum"; epro_etl.remove_edit_check() takes the threshold off.';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.thresholds_fit(text, text) IS 'Refuses a form''s batch threshold on a rule like these that the form has not, or not any more';

CREATE FUNCTION epro_etl.retire_check(form text, check_name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_one boolean;
BEGIN
    UPDATE epro_etl.edit_check c SET removed_at = now(), removed_by = session_user
        WHERE c.form = retire_check.form AND retire_check.check_name IN (c.check_name, c.part_of) AND c.removed_at IS NULL;
    found_one := FOUND;
    UPDATE epro_etl.batch_threshold t SET removed_at = now(), removed_by = session_user
        WHERE t.form = retire_check.form AND t.check_name = retire_check.check_name AND t.removed_at IS NULL;
    RETURN found_one OR FOUND;
END $$;
COMMENT ON FUNCTION epro_etl.retire_check(text, text) IS 'Takes off what has this name among a form''s edit checks, scores and batch thresholds, and what was declared with it; true if there was any';

CREATE FUNCTION epro_etl.add_edit_check(form text, check_name text, expression text, severity text DEFAULT 'error',
                                        condition text DEFAULT NULL, message text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF form IS NULL OR add_edit_check.check_name IS NULL OR add_edit_check.expression IS NULL THEN
        RAISE EXCEPTION 'form, check_name and expression must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF add_edit_check.check_name = '' THEN
        RAISE EXCEPTION 'check_name must not be empty' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(add_edit_check.severity, '') NOT IN ('error', 'warning', 'information') THEN
        RAISE EXCEPTION 'unknown severity "%"', add_edit_check.severity
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The severities are error, warning and information.';
    END IF;
    PERFORM epro_etl.retire_check(add_edit_check.form, add_edit_check.check_name);
    INSERT INTO epro_etl.edit_check (form, check_name, expression, severity, condition, message)
        VALUES (add_edit_check.form, add_edit_check.check_name, add_edit_check.expression, add_edit_check.severity,
                add_edit_check.condition, add_edit_check.message);
    PERFORM epro_etl.compile_form(add_edit_check.form);
END $$;
COMMENT ON FUNCTION epro_etl.add_edit_check(text, text, text, text, text, text) IS
    'Adds an edit check, an SQL boolean expression over the items of a form, or replaces the one of that name';

CREATE FUNCTION epro_etl.add_lookup(form text, check_name text, query text, severity text DEFAULT 'error',
                                    condition text DEFAULT NULL, message text DEFAULT NULL,
                                    timeout interval DEFAULT '1 second', on_timeout text DEFAULT 'defer') RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF form IS NULL OR add_lookup.check_name IS NULL OR query IS NULL THEN
        RAISE EXCEPTION 'form, check_name and query must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF add_lookup.check_name = '' THEN
        RAISE EXCEPTION 'check_name must not be empty' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(add_lookup.severity, '') NOT IN ('error', 'warning', 'information') THEN
        RAISE EXCEPTION 'unknown severity "%"', add_lookup.severity
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The severities are error, warning and information.';
    END IF;
    IF coalesce(add_lookup.on_timeout, '') NOT IN ('defer', 'reject', 'warn') THEN
        RAISE EXCEPTION 'unknown on_timeout "%"', add_lookup.on_timeout
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is defer, reject or warn.';
    END IF;
    IF add_lookup.timeout IS NULL OR add_lookup.timeout < '1 millisecond' OR add_lookup.timeout > '1 day' THEN
        RAISE EXCEPTION 'timeout must be between 1 millisecond and 1 day' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM epro_etl.retire_check(add_lookup.form, add_lookup.check_name);
    INSERT INTO epro_etl.edit_check (form, check_name, expression, severity, condition, message, timeout, on_timeout)
        VALUES (add_lookup.form, add_lookup.check_name, query, add_lookup.severity, add_lookup.condition, add_lookup.message,
                add_lookup.timeout, add_lookup.on_timeout);
    PERFORM epro_etl.compile_form(add_lookup.form);
END $$;
COMMENT ON FUNCTION epro_etl.add_lookup(text, text, text, text, text, text, interval, text) IS
    'Adds an edit check that asks a reference: a boolean SQL expression with subqueries over tables, views, foreign tables or functions, with a time to answer in and what follows without an answer: defer, reject or warn';

CREATE FUNCTION epro_etl.remove_edit_check(form text, check_name text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT epro_etl.retire_check(remove_edit_check.form, remove_edit_check.check_name) THEN
        RAISE EXCEPTION 'form "%" has no edit check "%"', form, check_name
            USING ERRCODE = 'undefined_object', HINT = 'See epro_etl.edit_check.';
    END IF;
    PERFORM epro_etl.thresholds_fit(form);
    -- others may read a score
    IF EXISTS (SELECT FROM epro_etl.edit_check c WHERE c.form = remove_edit_check.form AND remove_edit_check.check_name IN (c.check_name, c.part_of) AND c.computes AND c.removed_at = now()) THEN
        PERFORM epro_etl.compile_form(form);
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.remove_edit_check(text, text) IS 'Retires an edit check, a score or a batch threshold; runs of the past keep naming it';

CREATE FUNCTION epro_etl.set_severity(form text, location text, severity text, reason text DEFAULT NULL,
                                      valid_from timestamptz DEFAULT NULL, valid_until timestamptz DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF form IS NULL OR set_severity.location IS NULL THEN
        RAISE EXCEPTION 'form and location must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF set_severity.severity NOT IN ('error', 'warning', 'information', 'off') THEN
        RAISE EXCEPTION 'unknown severity "%"', set_severity.severity
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The severities are error, warning, information and off; NULL takes an overlay back.';
    END IF;
    IF set_severity.severity = 'off' AND coalesce(reason, '') = '' THEN
        RAISE EXCEPTION 'a rule is switched off for a reason' USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass reason.';
    END IF;
    IF coalesce(set_severity.valid_from, '-infinity') >= coalesce(set_severity.valid_until, 'infinity') THEN
        RAISE EXCEPTION 'valid_from must be before valid_until' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (SELECT FROM epro_etl.form f WHERE f.name = set_severity.form) THEN
        RAISE EXCEPTION 'form "%" does not exist', form
            USING ERRCODE = 'undefined_object', HINT = 'Register it with epro_etl.register_form().';
    END IF;
    IF set_severity.severity IS NOT NULL AND set_severity.location NOT LIKE '/%' AND NOT EXISTS (
        SELECT FROM epro_etl.edit_check c WHERE c.form = set_severity.form AND c.check_name = set_severity.location AND c.removed_at IS NULL AND NOT c.computes) THEN
        RAISE EXCEPTION 'form "%" has no edit check "%"', form, location
            USING ERRCODE = 'undefined_object', HINT = 'Name an edit check, or a keyword by its JSON Pointer in the definition.';
    END IF;
    -- the latest that holds wins: what it covers whole is over
    UPDATE epro_etl.severity_overlay o SET removed_at = now(), removed_by = session_user
        WHERE o.form = set_severity.form AND o.location = set_severity.location AND o.removed_at IS NULL
          AND (set_severity.severity IS NULL OR (o.valid_from >= coalesce(set_severity.valid_from, '-infinity')
                                                 AND o.valid_until <= coalesce(set_severity.valid_until, 'infinity')));
    IF set_severity.severity IS NULL THEN
        RETURN;
    END IF;
    -- one that holds later is held against the form now: it is tried as if it held
    INSERT INTO epro_etl.severity_overlay (form, location, severity, reason)
        VALUES (set_severity.form, set_severity.location, set_severity.severity, set_severity.reason);
    PERFORM epro_etl.compile_form(set_severity.form);
    UPDATE epro_etl.severity_overlay o
        SET valid_from = coalesce(set_severity.valid_from, '-infinity'), valid_until = coalesce(set_severity.valid_until, 'infinity')
        WHERE o.overlay_id = currval('epro_etl.severity_overlay_overlay_id_seq');
END $$;
COMMENT ON FUNCTION epro_etl.set_severity(text, text, text, text, timestamptz, timestamptz) IS
    'Gives a keyword of a form, by JSON Pointer, or an edit check, by name, another severity, or switches it off for a reason, perhaps for a time; NULL takes it back';

--
-- Kinds of edit checks, and scores: each becomes an expression or a lookup,
-- which is stored beside its kind and parameters
--

CREATE FUNCTION epro_etl.rule_item(form text, item text) RETURNS regtype
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found regtype := CASE item WHEN 'authored' THEN 'timestamptz' WHEN 'visit' THEN 'text' WHEN 'subject' THEN 'text' WHEN 'study' THEN 'text' END;
BEGIN
    SELECT i.type INTO found FROM epro_etl.form_items(rule_item.form) i WHERE i.name = rule_item.item
        UNION ALL SELECT found WHERE found IS NOT NULL LIMIT 1;
    IF found IS NULL THEN
        RAISE EXCEPTION 'form "%" has no item "%"', form, item
            USING ERRCODE = 'undefined_column', HINT = 'See epro_etl.form_items(); names are as in the form.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION epro_etl.rule_item(text, text) IS 'The SQL type of an item that a rule names, or of subject, visit, authored and study';

CREATE FUNCTION epro_etl.rule_literal(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN CASE jsonb_typeof($1) WHEN 'string' THEN quote_literal($1 #>> '{}') WHEN 'number' THEN CASE WHEN $1::text LIKE '-%' THEN '(' || $1::text || ')' ELSE $1::text END
                                 WHEN 'boolean' THEN $1::text END;
COMMENT ON FUNCTION epro_etl.rule_literal(jsonb) IS 'A scalar of a rule''s parameters as SQL';

CREATE FUNCTION epro_etl.rule_options(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT string_agg(epro_etl.rule_literal(v), ', ' ORDER BY n)
            FROM jsonb_array_elements(CASE jsonb_typeof($1) WHEN 'array' THEN $1 ELSE jsonb_build_array($1) END) WITH ORDINALITY AS u (v, n));
COMMENT ON FUNCTION epro_etl.rule_options(jsonb) IS 'A scalar or an array of scalars of a rule''s parameters as an SQL list';

CREATE FUNCTION epro_etl.rule_params(form text, what text, params jsonb, known jsonb) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key text;
    value jsonb;
    wants text;
    is_a text;
    entry record;
    fits boolean;
BEGIN
    IF jsonb_typeof(params) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'the parameters of % must be an object', what USING ERRCODE = 'invalid_parameter_value',
            HINT = format('Its parameters are %s.', (SELECT string_agg(k, ', ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(known) k));
    END IF;
    FOR key IN SELECT k FROM jsonb_object_keys(known) k WHERE known ->> k LIKE '%!' AND NOT params ? k ORDER BY k COLLATE "C" LOOP
        RAISE EXCEPTION '% needs the parameter "%"', what, key USING ERRCODE = 'invalid_parameter_value',
            HINT = format('Its parameters are %s.', (SELECT string_agg(k, ', ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(known) k));
    END LOOP;
    FOR key, value IN SELECT k, v FROM jsonb_each(params) AS e (k, v) ORDER BY k COLLATE "C" LOOP
        IF NOT known ? key THEN
            RAISE EXCEPTION '% does not take the parameter "%"', what, key USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Its parameters are %s.', (SELECT string_agg(k, ', ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(known) k));
        END IF;
        wants := rtrim(known ->> key, '!');
        is_a := jsonb_typeof(value);
        fits := CASE wants
            WHEN 'item' THEN is_a = 'string'
            WHEN 'text' THEN is_a = 'string' AND value <> '""'
            WHEN 'number' THEN is_a = 'number'
            WHEN 'count' THEN is_a = 'number' AND value #>> '{}' ~ '^[0-9]{1,9}$'
            WHEN 'integer' THEN is_a = 'number' AND value #>> '{}' ~ '^-?[0-9]{1,9}$'
            WHEN 'boolean' THEN is_a = 'boolean'
            WHEN 'scalar' THEN is_a IN ('string', 'number', 'boolean')
            WHEN 'scalars' THEN CASE is_a WHEN 'array' THEN jsonb_array_length(value) > 0
                AND NOT EXISTS (SELECT FROM jsonb_array_elements(value) e WHERE jsonb_typeof(e) NOT IN ('string', 'number', 'boolean')) END
            WHEN 'items' THEN CASE is_a WHEN 'array' THEN jsonb_array_length(value) > 0
                AND NOT EXISTS (SELECT FROM jsonb_array_elements(value) e WHERE jsonb_typeof(e) <> 'string') END
            WHEN 'range' THEN CASE is_a WHEN 'array' THEN CASE WHEN jsonb_array_length(value) = 2
                AND jsonb_typeof(value -> 0) = 'number' AND jsonb_typeof(value -> 1) = 'number' THEN (value ->> 0)::numeric < (value ->> 1)::numeric END END
            WHEN 'object' THEN CASE is_a WHEN 'object' THEN value <> '{}' END
            ELSE is_a IN ('string', 'object') END;
        IF fits IS NOT TRUE THEN
            RAISE EXCEPTION 'the parameter "%" of % must be %', key, what,
                CASE wants WHEN 'item' THEN 'the name of an item' WHEN 'text' THEN 'a text' WHEN 'count' THEN 'a whole number that is not negative'
                           WHEN 'integer' THEN 'a whole number' WHEN 'scalar' THEN 'a text, a number or a boolean'
                           WHEN 'scalars' THEN 'an array of texts, numbers or booleans' WHEN 'items' THEN 'an array of names of items'
                           WHEN 'range' THEN 'an array of the lowest and the highest number' WHEN 'object' THEN 'an object that is not empty'
                           WHEN 'number' THEN 'a number' WHEN 'boolean' THEN 'a boolean' ELSE 'a text or an object' END
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF wants = 'item' THEN
            PERFORM epro_etl.rule_item(form, value #>> '{}');
        ELSIF wants = 'items' THEN
            PERFORM epro_etl.rule_item(form, e) FROM jsonb_array_elements_text(value) e;
            IF (SELECT count(DISTINCT e) FROM jsonb_array_elements_text(value) e) < jsonb_array_length(value) THEN
                RAISE EXCEPTION 'the parameter "%" of % names an item twice', key, what USING ERRCODE = 'invalid_parameter_value';
            END IF;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION epro_etl.rule_params(text, text, jsonb, jsonb) IS 'Refuses parameters of a kind of edit check, or of a score, that it does not know, lacks, or cannot read';

CREATE FUNCTION epro_etl.rule_date(form text, item text, prefix text, bound text, zone text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text := prefix || quote_ident(item);
    is_a regtype := epro_etl.rule_item(form, item);
BEGIN
    IF is_a = 'date'::regtype THEN
        RETURN name;
    ELSIF is_a = 'timestamptz'::regtype THEN
        RETURN format('(%s AT TIME ZONE %L)::date', name, zone);
    ELSIF is_a = 'text'::regtype AND bound = 'exact' THEN
        RETURN format('CASE epro_etl.partial_date_precision(%1$s) WHEN ''day'' THEN epro_etl.partial_date_earliest(%1$s) END', name);
    ELSIF is_a = 'text'::regtype THEN
        RETURN format('epro_etl.partial_date_%s(%s)', bound, name);
    END IF;
    RAISE EXCEPTION 'item "%" of form "%" is no date', item, form USING ERRCODE = 'datatype_mismatch',
        HINT = 'A date is an item of the format date or date-time, or a text that holds a partial date.';
END $$;
COMMENT ON FUNCTION epro_etl.rule_date(text, text, text, text, text) IS 'SQL for the earliest, latest or exact day of an item that is a date, a partial date as text, or a date and time';

CREATE FUNCTION epro_etl.rule_table(what text, name text, columns text[]) RETURNS regclass
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found regclass := to_regclass(name);
    lost text;
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'table "%" of % does not exist', name, what
            USING ERRCODE = 'undefined_table', HINT = 'Write its schema, too; a sink can be asked when it is there.';
    END IF;
    SELECT c INTO lost FROM unnest(columns) c WHERE NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = found AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF lost IS NOT NULL THEN
        RAISE EXCEPTION '"%" has no column "%"', found, lost USING ERRCODE = 'undefined_column', HINT = format('It is named in %s.', what);
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION epro_etl.rule_table(text, text, text[]) IS 'The relation that a rule names, which must have these columns';

CREATE FUNCTION epro_etl.rule_match(form text, what text, match jsonb) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    said text := '';
    theirs text;
    ours jsonb;
BEGIN
    FOR theirs, ours IN SELECT k, v FROM jsonb_each(match) AS e (k, v) ORDER BY k COLLATE "C" LOOP
        IF jsonb_typeof(ours) = 'object' AND ours ? 'value' AND (SELECT count(*) FROM jsonb_object_keys(ours)) = 1
           AND jsonb_typeof(ours -> 'value') IN ('string', 'number', 'boolean') THEN
            said := said || format(' AND t.%I = %s', theirs, epro_etl.rule_literal(ours -> 'value'));
        ELSIF jsonb_typeof(ours) = 'string' THEN
            PERFORM epro_etl.rule_item(form, ours #>> '{}');
            said := said || format(' AND t.%I = response.%I', theirs, ours #>> '{}');
        ELSE
            RAISE EXCEPTION 'column "%" of % must be matched to an item', theirs, what USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Write {"%1$s": "item"}, or {"%1$s": {"value": "constant"}}.', theirs);
        END IF;
    END LOOP;
    RETURN substr(said, 6);
END $$;
COMMENT ON FUNCTION epro_etl.rule_match(text, text, jsonb) IS 'SQL that compares columns of a table with items of a response';

CREATE FUNCTION epro_etl.rule_when(form text, what text, "when" jsonb) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    said text;
    item text;
    options jsonb;
BEGIN
    FOR item, options IN SELECT k, v FROM jsonb_each("when") AS e (k, v) ORDER BY k COLLATE "C" LOOP
        PERFORM epro_etl.rule_item(form, item);
        IF epro_etl.rule_options(options) IS NULL OR jsonb_typeof(options) IN ('null', 'object') THEN
            RAISE EXCEPTION 'item "%" in "when" of % needs a value, or an array of values', item, what USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Write {"when": {"%1$s": "Y"}}, or {"when": {"%1$s": ["Y", "U"]}}.', item);
        END IF;
        said := coalesce(said || ' AND ', '') || format('%I IN (%s)', item, epro_etl.rule_options(options));
    END LOOP;
    RETURN said;
END $$;
COMMENT ON FUNCTION epro_etl.rule_when(text, text, jsonb) IS 'SQL for the parameter "when" of a kind of edit check: items and the answers that count';

CREATE FUNCTION epro_etl.add_check(form text, check_name text, kind text, params jsonb, severity text DEFAULT NULL,
                                   condition text DEFAULT NULL, message text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    kinds constant jsonb := '{
        "null_flavour": {"item": "item!", "codes": "scalars!", "excuses": "items!"},
        "at_least_one": {"items": "items!", "value": "scalar"},
        "exactly_one": {"items": "items!", "value": "scalar"},
        "required_if": {"items": "items!", "when": "object!"},
        "blank_unless": {"items": "items!", "when": "object!"},
        "required_precision": {"item": "item!", "precision": "text!"},
        "not_future": {"item": "item!", "time_zone": "text"},
        "start_before_end": {"start": "item!", "end": "item!", "allow_equal": "boolean", "time_zone": "text"},
        "study_day": {"item": "item!", "date": "item", "reference": "item!", "time_zone": "text"},
        "visit_window": {"date": "item", "anchor": "anchor!", "target": "integer", "before": "count", "after": "count", "windows": "object",
                         "time_zone": "text", "timeout": "text", "on_timeout": "text"},
        "unique_key": {"table": "text!", "match": "object!", "compare": "object", "timeout": "text", "on_timeout": "text"},
        "reference_exists": {"table": "text!", "match": "object!", "timeout": "text", "on_timeout": "text"},
        "previous_visit": {"table": "text!", "match": "object!", "item": "item!", "column": "text!", "order": "text", "before": "item",
                           "relation": "text", "max_change": "number", "no_previous": "text!", "timeout": "text", "on_timeout": "text"},
        "cross_form": {"table": "text!", "match": "object!", "item": "item!", "column": "text!", "relation": "text!", "no_row": "text",
                       "timeout": "text", "on_timeout": "text"},
        "unit_conversion": {"item": "item!", "unit": "item!", "units": "object!", "minimum": "number", "maximum": "number", "into": "text"},
        "batch_threshold": {"rule": "text!", "max_ratio": "number!", "minimum": "count"},
        "outlier": {"item": "item!", "low": "number", "high": "number", "mean": "number", "sd": "number", "z": "number"}}';
    what constant text := format('kind "%s"', kind);
    zone constant text := coalesce(params ->> 'time_zone', 'UTC');
    items text[];                   -- quoted
    list text;
    query boolean := kind IN ('unique_key', 'reference_exists', 'previous_visit', 'cross_form');
    relation text := params ->> 'relation';
    target regclass;
    expression text;
    rest text;                      -- a second check, when there is no previous
    day text;
    reference text;
    reference_is regtype;
    a text;
    b text;
    entry record;
    told text;
BEGIN
    IF form IS NULL OR check_name IS NULL OR kind IS NULL OR params IS NULL THEN
        RAISE EXCEPTION 'form, check_name, kind and params must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT kinds ? kind THEN
        RAISE EXCEPTION 'unknown kind "%"', kind USING ERRCODE = 'invalid_parameter_value',
            HINT = format('The kinds are %s.', (SELECT string_agg(k, ', ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(kinds) k));
    END IF;
    PERFORM epro_etl.rule_params(form, what, params, kinds -> kind);
    IF kind = 'batch_threshold' THEN
        IF num_nonnulls(severity, condition, message) > 0 THEN
            RAISE EXCEPTION '% has no severity, condition or message', what USING ERRCODE = 'invalid_parameter_value', HINT = 'These are its rule''s.';
        END IF;
        IF check_name = '' OR (params ->> 'max_ratio')::numeric < 0 OR (params ->> 'max_ratio')::numeric >= 1 OR (params ->> 'minimum')::integer = 0 THEN
            RAISE EXCEPTION '% needs a name, a max_ratio from 0 to below 1, and a minimum above 0', what USING ERRCODE = 'invalid_parameter_value';
        END IF;
        PERFORM epro_etl.compile_form(form);
        PERFORM epro_etl.retire_check(form, check_name);
        INSERT INTO epro_etl.batch_threshold (form, check_name, rule, max_ratio, minimum)
            VALUES (form, check_name, params ->> 'rule', (params ->> 'max_ratio')::double precision, coalesce((params ->> 'minimum')::integer, 1));
        PERFORM epro_etl.thresholds_fit(form);
        SELECT p.name INTO told FROM epro_etl.stream w JOIN epro_etl.pipeline p USING (pipeline_id) JOIN epro_etl.sink k USING (pipeline_id) WHERE k.form = add_check.form LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'pipeline "%" has a stream, which has no batch that a threshold could hold', told
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Stop it with epro_etl.stop_stream(), and load with epro_etl.run().';
        END IF;
        RETURN;
    END IF;
    IF zone <> 'UTC' AND NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = zone) THEN
        RAISE EXCEPTION 'unknown time zone "%"', zone USING ERRCODE = 'invalid_parameter_value', HINT = 'See pg_timezone_names.';
    END IF;
    IF relation <> ALL ('{=,<>,<,<=,>,>=}'::text[]) THEN
        RAISE EXCEPTION 'unknown relation "%"', relation USING ERRCODE = 'invalid_parameter_value', HINT = 'It is =, <>, <, <=, > or >=.';
    END IF;
    SELECT array_agg(quote_ident(e) ORDER BY n), string_agg(quote_ident(e), ', ' ORDER BY n) INTO items, list
        FROM jsonb_array_elements_text(coalesce(params -> 'items', params -> 'excuses')) WITH ORDINALITY AS u (e, n);

    CASE kind
    WHEN 'null_flavour' THEN
        expression := format('CASE WHEN %I IN (%s) THEN num_nonnulls(%s) = 0 ELSE num_nulls(%3$s) = 0 END',
                             params ->> 'item', epro_etl.rule_options(params -> 'codes'), list);
        told := 'the items that a null flavour excuses must be blank with it, and answered without it';
    WHEN 'at_least_one', 'exactly_one' THEN
        expression := format('%s %s 1', CASE WHEN params ? 'value' THEN
                                 (SELECT string_agg(format('(%s IS NOT DISTINCT FROM %s)::integer', i, epro_etl.rule_literal(params -> 'value')), ' + ' ORDER BY n)
                                  FROM unnest(items) WITH ORDINALITY AS u (i, n))
                             ELSE format('num_nonnulls(%s)', list) END,
                             CASE kind WHEN 'exactly_one' THEN '=' ELSE '>=' END);
        told := CASE kind WHEN 'exactly_one' THEN 'exactly one of a group of items must be given' ELSE 'at least one of a group of items must be given' END;
    WHEN 'required_if' THEN
        expression := format('NOT (%s) OR num_nulls(%s) = 0', epro_etl.rule_when(form, what, params -> 'when'), list);
        told := 'an item is conditionally required, and blank';
    WHEN 'blank_unless' THEN
        expression := format('(%s) OR num_nonnulls(%s) = 0', epro_etl.rule_when(form, what, params -> 'when'), list);
        told := 'an item must be blank unless its condition holds';
    WHEN 'required_precision' THEN
        IF params ->> 'precision' <> ALL ('{year,month,day}'::text[]) THEN
            RAISE EXCEPTION 'unknown precision "%"', params ->> 'precision' USING ERRCODE = 'invalid_parameter_value', HINT = 'It is year, month or day.';
        END IF;
        IF epro_etl.rule_item(form, params ->> 'item') <> 'text'::regtype THEN
            RAISE EXCEPTION 'item "%" of form "%" cannot hold a partial date', params ->> 'item', form
                USING ERRCODE = 'datatype_mismatch', HINT = 'A partial date is a text without a format.';
        END IF;
        expression := format('CASE WHEN %1$I IS NOT NULL THEN coalesce(epro_etl.partial_date_precision(%1$I) IN (%2$s), false) END', params ->> 'item',
                             CASE params ->> 'precision' WHEN 'day' THEN '''day''' WHEN 'month' THEN '''month'', ''day''' ELSE '''year'', ''month'', ''day''' END);
        told := format('must be a date that is known to the %s', params ->> 'precision');
    WHEN 'not_future' THEN
        IF epro_etl.rule_item(form, params ->> 'item') = 'timestamptz'::regtype THEN
            expression := format('%I <= authored', params ->> 'item');
        ELSE
            a := epro_etl.rule_date(form, params ->> 'item', '', 'earliest', zone);
            b := epro_etl.rule_date(form, params ->> 'item', '', 'latest', zone);
            day := epro_etl.rule_date(form, 'authored', '', 'exact', zone);
            expression := CASE WHEN a = b THEN format('%s <= %s', a, day)
                               ELSE format('CASE WHEN %s > %s THEN false WHEN %s <= %2$s THEN true END', a, day, b) END;
        END IF;
        told := 'must not be after the day of authoring';
    WHEN 'start_before_end' THEN
        a := CASE WHEN (params -> 'allow_equal')::boolean IS FALSE THEN '' ELSE '=' END;
        IF epro_etl.rule_item(form, params ->> 'start') = 'timestamptz'::regtype AND epro_etl.rule_item(form, params ->> 'end') = 'timestamptz'::regtype THEN
            expression := format('%I <%s %I', params ->> 'start', a, params ->> 'end');
        ELSE
            expression := format('CASE WHEN %s <%s %s THEN true WHEN %s >%s %s THEN false END',
                                 epro_etl.rule_date(form, params ->> 'start', '', 'latest', zone), a, epro_etl.rule_date(form, params ->> 'end', '', 'earliest', zone),
                                 epro_etl.rule_date(form, params ->> 'start', '', 'earliest', zone), CASE a WHEN '' THEN '=' ELSE '' END,
                                 epro_etl.rule_date(form, params ->> 'end', '', 'latest', zone));
        END IF;
        told := 'the start must be before the end';
    WHEN 'study_day' THEN
        expression := format('%I = epro_etl.study_day(%s, %s)', params ->> 'item',
                             epro_etl.rule_date(form, coalesce(params ->> 'date', 'authored'), '', 'exact', zone),
                             epro_etl.rule_date(form, params ->> 'reference', '', 'exact', zone));
        told := 'the study day is not that of the date';
    WHEN 'visit_window' THEN
        IF params ? 'windows' = (params ? 'target' OR params ? 'before' OR params ? 'after') OR NOT params ? 'windows' AND NOT params ?& '{target,before,after}' THEN
            RAISE EXCEPTION '% needs either target, before and after, or windows', what USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Write {"target": 28, "before": 3, "after": 3}, or {"windows": {"WEEK 4": [28, 3, 3]}}.';
        END IF;
        FOR entry IN SELECT k AS visit, v AS span FROM jsonb_each(params -> 'windows') AS e (k, v) LOOP
            IF (CASE jsonb_typeof(entry.span) WHEN 'array' THEN jsonb_array_length(entry.span) = 3 AND entry.span ->> 0 ~ '^-?[0-9]{1,9}$'
                    AND entry.span ->> 1 ~ '^[0-9]{1,9}$' AND entry.span ->> 2 ~ '^[0-9]{1,9}$' END) IS NOT TRUE THEN
                RAISE EXCEPTION 'the window of visit "%" must be [target day, days before, days after]', entry.visit USING ERRCODE = 'invalid_parameter_value';
            END IF;
        END LOOP;
        IF 0 IN (SELECT (v ->> 0)::integer FROM jsonb_each(params -> 'windows') AS e (k, v) UNION ALL SELECT (params -> 'target')::integer) THEN
            RAISE EXCEPTION 'there is no study day 0' USING ERRCODE = 'invalid_parameter_value', HINT = 'The anchor is day 1, the day before it day -1.';
        END IF;
        query := jsonb_typeof(params -> 'anchor') = 'object';
        IF query THEN
            PERFORM epro_etl.rule_params(form, '"anchor" of ' || what, params -> 'anchor', '{"table": "text!", "column": "text!", "match": "object!"}');
            target := epro_etl.rule_table(what, params #>> '{anchor,table}', ARRAY[params #>> '{anchor,column}']
                                          || ARRAY(SELECT jsonb_object_keys(params #> '{anchor,match}')));
            SELECT a.atttypid INTO reference_is FROM pg_attribute a WHERE a.attrelid = target AND a.attname = params #>> '{anchor,column}';
            reference := format('t.%I', params #>> '{anchor,column}');
            reference := CASE reference_is::text WHEN 'date' THEN reference WHEN 'timestamp without time zone' THEN reference || '::date'
                WHEN 'timestamp with time zone' THEN format('(%s AT TIME ZONE %L)::date', reference, zone)
                WHEN 'text' THEN format('CASE epro_etl.partial_date_precision(%1$s) WHEN ''day'' THEN epro_etl.partial_date_earliest(%1$s) END', reference) END;
            IF reference IS NULL THEN
                RAISE EXCEPTION 'column "%" of "%" is no date', params #>> '{anchor,column}', target USING ERRCODE = 'datatype_mismatch',
                    HINT = 'An anchor is a date, a timestamp, or a text that holds a date.';
            END IF;
        ELSE
            reference := epro_etl.rule_date(form, params ->> 'anchor', '', 'exact', zone);
        END IF;
        day := format('%s - %s', epro_etl.rule_date(form, coalesce(params ->> 'date', 'authored'), CASE WHEN query THEN 'response.' ELSE '' END, 'exact', zone), reference);
        -- in days from the anchor, since study days have no 0
        IF params ? 'windows' THEN
            a := CASE WHEN query THEN 'response.visit' ELSE 'visit' END;
            expression := format('CASE%s WHEN %s IS NULL THEN NULL ELSE true END',
                                 (SELECT string_agg(format(' WHEN %s = %L THEN %s BETWEEN %s AND %s', a, k, day, o - (v ->> 1)::integer, o + (v ->> 2)::integer), '' ORDER BY k COLLATE "C")
                                  FROM jsonb_each(params -> 'windows') AS e (k, v), LATERAL (SELECT (v ->> 0)::integer - ((v ->> 0)::integer > 0)::integer AS o) x), a);
        ELSE
            expression := (SELECT format('%s BETWEEN %s AND %s', day, o - (params -> 'before')::integer, o + (params -> 'after')::integer)
                           FROM (SELECT (params -> 'target')::integer - ((params -> 'target')::integer > 0)::integer AS o) x);
        END IF;
        IF query THEN
            expression := format('(SELECT %s FROM %s t WHERE %s)', expression, target, epro_etl.rule_match(form, '"anchor" of ' || what, params #> '{anchor,match}'));
        END IF;
        told := 'the visit is outside its window';
    WHEN 'unique_key' THEN
        target := epro_etl.rule_table(what, params ->> 'table', ARRAY(SELECT jsonb_object_keys(params -> 'match'))
                                      || ARRAY(SELECT jsonb_object_keys(coalesce(params -> 'compare', '{}'))));
        FOR entry IN SELECT k, v FROM jsonb_each(params -> 'compare') AS e (k, v) LOOP
            IF jsonb_typeof(entry.v) <> 'string' THEN
                RAISE EXCEPTION 'column "%" in "compare" of % must be compared with an item', entry.k, what USING ERRCODE = 'invalid_parameter_value';
            END IF;
            PERFORM epro_etl.rule_item(form, entry.v #>> '{}');
        END LOOP;
        expression := format('NOT EXISTS (SELECT FROM %s t WHERE %s%s)', target, epro_etl.rule_match(form, what, params -> 'match'),
                             (SELECT format(' AND (%s) IS DISTINCT FROM (%s)', string_agg(format('t.%I', k), ', ' ORDER BY k COLLATE "C"),
                                            string_agg(format('response.%I', v #>> '{}'), ', ' ORDER BY k COLLATE "C"))
                              FROM jsonb_each(params -> 'compare') AS e (k, v) HAVING count(*) > 0));
        IF (SELECT count(*) FROM jsonb_object_keys(coalesce(params -> 'compare', '{}'))) = 1 THEN
            expression := format('NOT EXISTS (SELECT FROM %s t WHERE %s%s)', target, epro_etl.rule_match(form, what, params -> 'match'),
                                 (SELECT format(' AND t.%I IS DISTINCT FROM response.%I', k, v #>> '{}') FROM jsonb_each(params -> 'compare') AS e (k, v)));
        END IF;
        told := CASE WHEN params ? 'compare' THEN 'a response with this key is there already, and says otherwise' ELSE 'a response with this key is there already' END;
    WHEN 'reference_exists' THEN
        target := epro_etl.rule_table(what, params ->> 'table', ARRAY(SELECT jsonb_object_keys(params -> 'match')));
        expression := format('EXISTS (SELECT FROM %s t WHERE %s)', target, epro_etl.rule_match(form, what, params -> 'match'));
        told := 'what the response refers to is not there';
    WHEN 'previous_visit' THEN
        IF (relation IS NULL) = (params -> 'max_change' IS NULL) THEN
            RAISE EXCEPTION '% needs either relation or max_change', what USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF params ->> 'no_previous' <> ALL ('{pass,warning,"not evaluated"}'::text[]) THEN
            RAISE EXCEPTION 'unknown policy "%"', params ->> 'no_previous' USING ERRCODE = 'invalid_parameter_value', HINT = 'It is pass, warning or not evaluated.';
        END IF;
        target := epro_etl.rule_table(what, params ->> 'table', ARRAY[params ->> 'column', coalesce(params ->> 'order', 'authored')]
                                      || ARRAY(SELECT jsonb_object_keys(params -> 'match')));
        rest := format('FROM %s t WHERE %s AND t.%I < response.%I', target, epro_etl.rule_match(form, what, params -> 'match'),
                       coalesce(params ->> 'order', 'authored'), coalesce(params ->> 'before', 'authored'));
        expression := format('(SELECT %s %s ORDER BY t.%I DESC LIMIT 1)',
                             CASE WHEN relation IS NOT NULL THEN format('response.%I %s t.%I', params ->> 'item', relation, params ->> 'column')
                                  ELSE format('abs(response.%I - t.%I) <= %s', params ->> 'item', params ->> 'column', epro_etl.rule_literal(params -> 'max_change')) END,
                             rest, coalesce(params ->> 'order', 'authored'));
        IF params ->> 'no_previous' <> 'not evaluated' THEN
            expression := format('CASE WHEN EXISTS (SELECT %s) THEN %s ELSE true END', rest, expression);
        END IF;
        rest := CASE params ->> 'no_previous' WHEN 'warning' THEN format('EXISTS (SELECT %s)', rest) END;
        told := 'does not fit what the previous visit has';
    WHEN 'cross_form' THEN
        IF params ->> 'no_row' <> ALL ('{pass,"not evaluated"}'::text[]) THEN
            RAISE EXCEPTION 'unknown policy "%"', params ->> 'no_row' USING ERRCODE = 'invalid_parameter_value', HINT = 'It is pass or not evaluated.';
        END IF;
        target := epro_etl.rule_table(what, params ->> 'table', ARRAY[params ->> 'column'] || ARRAY(SELECT jsonb_object_keys(params -> 'match')));
        rest := format('FROM %s t WHERE %s', target, epro_etl.rule_match(form, what, params -> 'match'));
        expression := format('(SELECT bool_and(response.%I %s t.%I) %s)', params ->> 'item', relation, params ->> 'column', rest);
        IF params ->> 'no_row' = 'pass' THEN
            expression := format('CASE WHEN EXISTS (SELECT %s) THEN %s ELSE true END', rest, expression);
        END IF;
        rest := NULL;
        told := 'does not fit what another form has';
    WHEN 'unit_conversion' THEN
        IF NOT params ?| '{minimum,maximum,into}' THEN
            RAISE EXCEPTION '% needs minimum, maximum or both', what USING ERRCODE = 'invalid_parameter_value',
                HINT = 'They are in the standard unit; without them it needs "into", the name of an item for the converted value.';
        END IF;
        IF params ->> 'into' = check_name THEN
            RAISE EXCEPTION 'the item that % converts into must have another name than the check', what USING ERRCODE = 'invalid_parameter_value';
        END IF;
        a := '';
        -- whole numbers would be divided as such
        day := quote_ident(params ->> 'item') || CASE WHEN epro_etl.rule_item(form, params ->> 'item') IN ('integer'::regtype, 'bigint'::regtype) THEN '::numeric' ELSE '' END;
        FOR entry IN SELECT k AS unit, v AS factor FROM jsonb_each(params -> 'units') AS e (k, v) ORDER BY k COLLATE "C" LOOP
            b := day;
            IF jsonb_typeof(entry.factor) = 'number' AND (entry.factor #>> '{}')::numeric > 0 THEN
                b := CASE WHEN (entry.factor #>> '{}')::numeric = 1 THEN b ELSE format('%s * %s', b, entry.factor) END;
            ELSE
                PERFORM epro_etl.rule_params(form, format('unit "%s" of %s', entry.unit, what), entry.factor, '{"add": "number", "multiply": "number", "divide": "number"}');
                IF (entry.factor ->> 'multiply')::numeric <= 0 OR (entry.factor ->> 'divide')::numeric <= 0 OR jsonb_typeof(entry.factor) <> 'object' THEN
                    RAISE EXCEPTION 'the factor of unit "%" must be above zero', entry.unit USING ERRCODE = 'invalid_parameter_value';
                END IF;
                b := CASE WHEN entry.factor ? 'add' THEN format('(%s + %s)', b, epro_etl.rule_literal(entry.factor -> 'add')) ELSE b END;
                b := b || coalesce(' * ' || (entry.factor ->> 'multiply'), '') || coalesce(' / ' || (entry.factor ->> 'divide'), '');
            END IF;
            a := a || format(' WHEN %s THEN %s', quote_literal(entry.unit), b);
        END LOOP;
        a := format('CASE %I%s END', params ->> 'unit', a);
        expression := concat_ws(' AND ', a || ' >= ' || epro_etl.rule_literal(params -> 'minimum'), a || ' <= ' || epro_etl.rule_literal(params -> 'maximum'));
        IF expression = '' THEN
            expression := a || ' IS NOT NULL OR NULL';
        END IF;
        IF params ? 'into' THEN
            rest := CASE WHEN a LIKE '%/%' THEN format('trim_scale(%s)', a) ELSE a END;
        END IF;
        told := 'is outside the range in the standard unit';
    WHEN 'outlier' THEN
        IF severity = 'error' THEN
            RAISE EXCEPTION 'an outlier is a soft check' USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Its severity is warning or information; a limit that must hold is minimum or maximum in the form.';
        END IF;
        IF params ?| '{low,high}' = params ?| '{mean,sd,z}' OR params ?| '{mean,sd,z}' AND NOT params ?& '{mean,sd}'
           OR (params ->> 'sd')::numeric <= 0 OR (params ->> 'z')::numeric <= 0 THEN
            RAISE EXCEPTION '% needs either low and high, or mean and sd', what USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Write {"low": 40, "high": 180}, or {"mean": 72, "sd": 12, "z": 3}; sd and z are above zero.';
        END IF;
        a := quote_ident(params ->> 'item');
        expression := CASE WHEN params ? 'mean' THEN format('abs(%s - %s) <= %s * %s', a, epro_etl.rule_literal(params -> 'mean'), coalesce(params -> 'z', '3'), params -> 'sd')
                           ELSE concat_ws(' AND ', a || ' >= ' || epro_etl.rule_literal(params -> 'low'), a || ' <= ' || epro_etl.rule_literal(params -> 'high')) END;
        told := 'is far from what is usual';
    END CASE;

    severity := coalesce(severity, CASE kind WHEN 'outlier' THEN 'warning' ELSE 'error' END);
    IF query THEN
        BEGIN
            PERFORM epro_etl.add_lookup(form, check_name, expression, severity, condition, coalesce(message, told),
                                        coalesce(params ->> 'timeout', '1 second')::interval, coalesce(params ->> 'on_timeout', 'defer'));
        EXCEPTION
            WHEN invalid_datetime_format OR datetime_field_overflow THEN
                RAISE EXCEPTION 'the parameter "timeout" of % must be an interval', what USING ERRCODE = 'invalid_parameter_value', HINT = 'Write "50 ms".';
        END;
    ELSE
        IF params ?| '{timeout,on_timeout}' THEN
            RAISE EXCEPTION '% asks nobody here, and takes no timeout', what USING ERRCODE = 'invalid_parameter_value',
                HINT = 'timeout and on_timeout are those of an anchor in a table.';
        END IF;
        -- the item first: what reads it would miss the one that goes with the check that is replaced
        IF kind = 'unit_conversion' AND rest IS NOT NULL THEN
            PERFORM epro_etl.add_score(form, params ->> 'into', jsonb_strip_nulls(jsonb_build_object('expression', rest, 'condition', condition)));
        END IF;
        PERFORM epro_etl.add_edit_check(form, check_name, expression, severity, condition, coalesce(message, told));
        UPDATE epro_etl.edit_check c SET kind = add_check.kind, params = add_check.params, part_of = add_check.check_name
            WHERE kind = 'unit_conversion' AND c.form = add_check.form AND c.check_name = params ->> 'into' AND c.removed_at IS NULL;
    END IF;
    UPDATE epro_etl.edit_check c SET kind = add_check.kind, params = add_check.params
        WHERE c.form = add_check.form AND c.check_name = add_check.check_name AND c.removed_at IS NULL;
    IF rest IS NOT NULL AND kind = 'previous_visit' THEN
        PERFORM epro_etl.add_lookup(form, check_name || ': no previous', rest, 'warning', condition, 'there is no previous visit to compare with',
                                    coalesce(params ->> 'timeout', '1 second')::interval, coalesce(params ->> 'on_timeout', 'defer'));
        UPDATE epro_etl.edit_check c SET kind = add_check.kind, params = add_check.params, part_of = add_check.check_name
            WHERE c.form = add_check.form AND c.check_name = add_check.check_name || ': no previous' AND c.removed_at IS NULL;
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.add_check(text, text, text, jsonb, text, text, text) IS
    'Adds an edit check of a declared kind, such as required_if, visit_window or unique_key; what it becomes, an expression or a lookup, stands in edit_check beside kind and params; a batch_threshold holds whole runs';

CREATE FUNCTION epro_etl.add_score(form text, score text, spec jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    known constant jsonb := '{"items": "items", "range": "range", "ranges": "object", "reverse": "items", "codes": "object", "function": "text", "expression": "text",
        "min_answered": "count", "min_share": "number", "missing": "text", "round": "count", "transform": "boolean", "mode": "text", "stated": "item",
        "tolerance": "number", "condition": "text", "severity": "text", "message": "text"}';
    what constant text := 'a score';
    mode constant text := coalesce(spec ->> 'mode', 'compute');
    verb constant text := coalesce(spec ->> 'function', 'sum');
    missing text := spec ->> 'missing';
    n integer := coalesce(jsonb_array_length(CASE jsonb_typeof(spec -> 'items') WHEN 'array' THEN spec -> 'items' END), 0);
    least integer;
    ranged boolean := spec ? 'range' OR spec ? 'ranges';
    terms text[];                   -- NULL where the item is not answered
    lows numeric[];
    highs numeric[];
    legal text := '';
    value text;
    answered text;
    lowest numeric;
    highest numeric;
    entry record;
    pipe text;
BEGIN
    IF form IS NULL OR score IS NULL OR spec IS NULL THEN
        RAISE EXCEPTION 'form, score and spec must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    -- a score of that name that is being replaced is no item any more
    PERFORM epro_etl.retire_check(form, score);
    PERFORM epro_etl.rule_params(form, what, spec, known);
    IF mode <> ALL ('{compute,verify}'::text[]) THEN
        RAISE EXCEPTION 'unknown mode "%"', mode USING ERRCODE = 'invalid_parameter_value', HINT = 'It is compute or verify.';
    END IF;
    IF (mode = 'verify') <> (spec ? 'stated') OR mode = 'compute' AND spec ?| '{tolerance,severity,message}' THEN
        RAISE EXCEPTION '"stated", "tolerance", "severity" and "message" are for the mode verify, which needs "stated"' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Write {"mode": "verify", "stated": "total"}.';
    END IF;
    IF mode = 'compute' AND (score = '' OR lower(score) = ANY ('{subject,visit,authored,study}'::text[])) THEN
        RAISE EXCEPTION '"%" cannot be the name of a score', score USING ERRCODE = 'invalid_parameter_value',
            HINT = 'A score that is computed is an item of its form: subject, visit, authored and study are taken.';
    END IF;
    IF spec ? 'expression' = spec ? 'items' OR spec ? 'expression' AND spec ?| '{range,ranges,reverse,codes,function,min_answered,min_share,missing,transform}' THEN
        RAISE EXCEPTION 'a score needs either items, or an expression, which says all by itself' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF spec ? 'expression' THEN
        value := format('(%s)', spec ->> 'expression');
    ELSE
        IF verb <> ALL ('{sum,mean,product}'::text[]) THEN
            RAISE EXCEPTION 'unknown function "%"', verb USING ERRCODE = 'invalid_parameter_value', HINT = 'It is sum, mean or product; write an expression for others.';
        END IF;
        IF spec ? 'range' AND spec ? 'ranges' OR spec ? 'min_answered' AND spec ? 'min_share' THEN
            RAISE EXCEPTION 'a score has either range or ranges, and either min_answered or min_share' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF spec ? 'min_share' AND (spec -> 'min_share')::numeric NOT BETWEEN 0 AND 1 THEN
            RAISE EXCEPTION 'min_share must be between 0 and 1' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        least := greatest(1, coalesce((spec -> 'min_answered')::integer, ceil((spec -> 'min_share')::numeric * n)::integer, n));
        IF least > n THEN
            RAISE EXCEPTION 'min_answered is more than the score''s % items', n USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF missing <> ALL ('{prorate,maxima,ignore}'::text[]) THEN
            RAISE EXCEPTION 'unknown policy "%"', missing USING ERRCODE = 'invalid_parameter_value',
                HINT = 'For items that are not answered it is prorate (the mean of the others), maxima (by their share of the highest score) or ignore.';
        END IF;
        IF least = n AND missing IS NOT NULL OR least < n AND (missing IS NULL) <> (verb = 'mean') OR least < n AND verb = 'product' THEN
            RAISE EXCEPTION 'it must be said what becomes of items that are not answered, where some may be' USING ERRCODE = 'invalid_parameter_value',
                HINT = 'A sum takes min_answered or min_share together with missing: prorate, maxima or ignore; a mean is that of the answered items; a product needs all.';
        END IF;
        IF NOT ranged AND (spec ? 'reverse' OR spec ? 'transform' OR missing = 'maxima') THEN
            RAISE EXCEPTION 'reverse, transform and maxima need the range of the items' USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Write {"range": [0, 3]}, or {"ranges": {"item": [0, 3]}} with every item.';
        END IF;
        IF EXISTS (SELECT jsonb_array_elements_text(spec -> 'reverse') EXCEPT SELECT jsonb_array_elements_text(spec -> 'items'))
           OR spec ? 'ranges' AND EXISTS (SELECT jsonb_object_keys(spec -> 'ranges') EXCEPT SELECT jsonb_array_elements_text(spec -> 'items')) THEN
            RAISE EXCEPTION 'reverse and ranges must name items of the score' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        FOR entry IN SELECT k, v FROM jsonb_each(spec -> 'codes') AS e (k, v) LOOP
            IF jsonb_typeof(entry.v) NOT IN ('number', 'null') THEN
                RAISE EXCEPTION 'code "%" must stand for a number, or for null: not applicable', entry.k USING ERRCODE = 'invalid_parameter_value';
            END IF;
        END LOOP;

        FOR entry IN SELECT e AS name, quote_ident(e) AS item, epro_etl.rule_item(form, e) AS type,
                            coalesce(spec -> 'range', spec -> 'ranges' -> e) AS span, coalesce(spec -> 'reverse', '[]') ? e AS reversed
                     FROM jsonb_array_elements_text(spec -> 'items') WITH ORDINALITY AS u (e, o) ORDER BY o LOOP
            IF spec ? 'codes' AND entry.type <> 'text'::regtype
               OR NOT spec ? 'codes' AND entry.type <> ALL ('{integer,bigint,numeric}'::regtype[]) THEN
                RAISE EXCEPTION 'item "%" of form "%" is no %', entry.name, form, CASE WHEN spec ? 'codes' THEN 'text' ELSE 'number' END
                    USING ERRCODE = 'datatype_mismatch', HINT = 'Say which numbers its codes stand for: {"codes": {"Y": 1, "N": 0, "NA": null}}.';
            END IF;
            IF ranged THEN
                PERFORM epro_etl.rule_params(form, format('the range of item "%s"', entry.name), jsonb_build_object('range', entry.span), '{"range": "range!"}');
                lows := lows || (entry.span ->> 0)::numeric;
                highs := highs || (entry.span ->> 1)::numeric;
            END IF;
            IF spec ? 'codes' THEN
                legal := legal || format(' AND (%s IN (%s)) IS NOT FALSE', entry.item, (SELECT string_agg(quote_literal(k), ', ' ORDER BY k COLLATE "C") FROM jsonb_object_keys(spec -> 'codes') k));
                value := format('CASE %s%s END', entry.item, (SELECT string_agg(format(' WHEN %L THEN %s', k, v), '' ORDER BY k COLLATE "C") FROM jsonb_each(spec -> 'codes') AS e (k, v)));
            ELSE
                value := entry.item;
                IF ranged THEN
                    legal := legal || format(' AND (%s BETWEEN %s AND %s) IS NOT FALSE', entry.item, entry.span -> 0, entry.span -> 1);
                END IF;
            END IF;
            IF entry.reversed THEN
                value := format('%s - %s', (entry.span ->> 0)::numeric + (entry.span ->> 1)::numeric, value);
            END IF;
            terms := terms || value;
        END LOOP;

        answered := format('num_nonnulls(%s)', array_to_string(terms, ', '));
        IF verb = 'product' THEN
            value := (SELECT string_agg(format('(%s)::numeric', t), ' * ' ORDER BY o) FROM unnest(terms) WITH ORDINALITY AS u (t, o));
        ELSE
            value := format('(%s)', (SELECT string_agg(format('coalesce((%s)::numeric, 0)', t), ' + ' ORDER BY o) FROM unnest(terms) WITH ORDINALITY AS u (t, o)));
        END IF;
        lowest := (SELECT sum(x) FROM unnest(lows) x);
        highest := (SELECT sum(x) FROM unnest(highs) x);
        IF verb = 'mean' THEN
            value := format('%s / %s', value, answered);
            lowest := lowest / n;
            highest := highest / n;
        ELSIF missing = 'prorate' THEN
            value := format('%s * %s / %s', value, n, answered);
        ELSIF missing = 'maxima' THEN
            value := format('%s * %s / (%s)', value, highest,
                            (SELECT string_agg(format('%s * num_nonnulls(%s)', h, t), ' + ' ORDER BY o) FROM unnest(terms, highs) WITH ORDINALITY AS u (t, h, o)));
        END IF;
        IF (spec -> 'transform')::boolean THEN
            IF verb = 'product' OR missing = 'ignore' OR verb = 'mean' AND (SELECT count(DISTINCT (l, h)) FROM unnest(lows, highs) AS u (l, h)) > 1 THEN
                RAISE EXCEPTION 'this score has no fixed range to be transformed from' USING ERRCODE = 'invalid_parameter_value',
                    HINT = 'A sum of all items, or of as many as are there made up to all, has; and a mean of items with one range.';
            END IF;
            value := format('(%s - %s) * 100 / %s', value, trim_scale(lowest), trim_scale(highest - lowest));
        END IF;
        IF spec ? 'round' THEN
            value := format('round(%s, %s)', value, spec -> 'round');
        ELSIF value LIKE '%/%' THEN
            value := format('trim_scale(%s)', value);
        END IF;
        value := format('CASE WHEN %s >= %s%s THEN %s END', answered, least, legal, value);
    END IF;
    IF spec ? 'expression' AND spec ? 'round' THEN
        value := format('round(%s, %s)', value, spec -> 'round');
    END IF;

    IF mode = 'verify' THEN
        IF epro_etl.rule_item(form, spec ->> 'stated') <> ALL ('{integer,bigint,numeric}'::regtype[]) THEN
            RAISE EXCEPTION 'item "%" of form "%" is no number', spec ->> 'stated', form USING ERRCODE = 'datatype_mismatch';
        END IF;
        IF (spec -> 'tolerance')::numeric < 0 THEN
            RAISE EXCEPTION 'tolerance must not be negative' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        value := format('abs(%I - %s) <= %s', spec ->> 'stated', value, coalesce(spec -> 'tolerance', '0'));
        PERFORM epro_etl.add_edit_check(form, score, value, coalesce(spec ->> 'severity', 'warning'), spec ->> 'condition',
                                        coalesce(spec ->> 'message', 'the stated score is not the one that its items give'));
    ELSE
        IF score = '' THEN
            RAISE EXCEPTION 'score must not be empty' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        INSERT INTO epro_etl.edit_check (form, check_name, expression, severity, condition, computes)
            VALUES (form, score, value, 'information', spec ->> 'condition', true);
        PERFORM epro_etl.compile_form(form);
    END IF;
    UPDATE epro_etl.edit_check c SET kind = 'score', params = spec
        WHERE c.form = add_score.form AND c.check_name = score AND c.removed_at IS NULL;
    PERFORM epro_etl.thresholds_fit(form);
    FOR pipe IN SELECT p.name FROM epro_etl.pipeline p
                WHERE mode = 'compute' AND EXISTS (SELECT FROM epro_etl.sink s WHERE s.pipeline_id = p.pipeline_id AND s.form = add_score.form) ORDER BY p.name LOOP
        PERFORM epro_etl.tell_unstored(pipe, form);
    END LOOP;
END $$;
COMMENT ON FUNCTION epro_etl.add_score(text, text, jsonb) IS
    'Adds a score of a form: computed, it is an item of its own that sinks take by its name; verified, a stated total that disagrees is a finding';

CREATE VIEW epro_etl.deid_category AS
    SELECT v.paragraph, v.category, v.identifier FROM (VALUES
        ('A', 'names', 'names'),
        ('B', 'geographic', 'geographic subdivisions smaller than a state, but for the first three digits of a ZIP code of more than 20,000 people'),
        ('C', 'dates', 'elements of dates but the year, that are directly related to an individual; ages over 89'),
        ('D', 'telephone', 'telephone numbers'),
        ('E', 'fax', 'fax numbers'),
        ('F', 'email', 'electronic mail addresses'),
        ('G', 'ssn', 'social security numbers'),
        ('H', 'medical record', 'medical record numbers'),
        ('I', 'health plan', 'health plan beneficiary numbers'),
        ('J', 'account', 'account numbers'),
        ('K', 'license', 'certificate and license numbers'),
        ('L', 'vehicle', 'vehicle identifiers and serial numbers, license plates included'),
        ('M', 'device', 'device identifiers and serial numbers'),
        ('N', 'url', 'web addresses (URL)'),
        ('O', 'ip address', 'internet protocol addresses'),
        ('P', 'biometric', 'biometric identifiers, finger and voice prints included'),
        ('Q', 'photograph', 'full-face photographs and comparable images'),
        ('R', 'other', 'any other unique identifying number, characteristic or code')) AS v (paragraph, category, identifier);
COMMENT ON VIEW epro_etl.deid_category IS 'The 18 identifiers of 45 CFR 164.514(b)(2)(i), by their paragraph: what the parameter "category" of set_deid() can be';

CREATE FUNCTION epro_etl.set_deid(form text, path text, method text, params jsonb DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    item jsonb;
    unjudged text;
BEGIN
    IF form IS NULL OR set_deid.path IS NULL OR set_deid.method IS NULL OR set_deid.params IS NULL THEN
        RAISE EXCEPTION 'form, path, method and params must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF set_deid.params ? 'category' AND NOT EXISTS (SELECT FROM epro_etl.deid_category c WHERE to_jsonb(c.category) = set_deid.params -> 'category') THEN
        RAISE EXCEPTION 'the category of item "%" is none of the 18 identifiers of HIPAA', path
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'They are ' || (SELECT string_agg(c.category, ', ' ORDER BY c.paragraph) FROM epro_etl.deid_category c) || '.';
    END IF;
    UPDATE epro_etl.deid_rule d SET removed_at = now(), removed_by = session_user
        WHERE d.form = set_deid.form AND d.path = set_deid.path AND d.removed_at IS NULL;
    INSERT INTO epro_etl.deid_rule (form, path, method, params)
        VALUES (set_deid.form, set_deid.path, set_deid.method, set_deid.params);
    PERFORM epro_etl.compile_form(set_deid.form);
    PERFORM epro_etl.thresholds_fit(set_deid.form);

    -- what is taken out cannot be judged: say which keywords that silences; a date that is shifted is judged before
    IF set_deid.method NOT IN ('keep', 'dateShift') AND set_deid.path LIKE '/%' THEN
        SELECT f.definition #> (SELECT array_agg(k ORDER BY n, half)
                                FROM unnest(string_to_array(substr(set_deid.path, 2), '/')) WITH ORDINALITY AS s (step, n),
                                     LATERAL (VALUES (1, 'properties'), (2, replace(replace(step, '~1', '/'), '~0', '~'))) AS h (half, k))
            INTO item FROM epro_etl.form f WHERE f.name = set_deid.form ORDER BY f.form_id DESC LIMIT 1;
        SELECT string_agg(DISTINCT key, ', ' ORDER BY key) INTO unjudged
            FROM jsonb_path_query(item, 'strict $.** ? (@.type() == "object")') AS part, jsonb_object_keys(part) AS key
            WHERE key IN ('enum', 'const', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum',
                          'minLength', 'maxLength', 'pattern', '$ref', 'allOf', 'anyOf', 'oneOf', 'not', 'if', 'multipleOf',
                          'items', 'prefixItems', 'contains', 'uniqueItems', 'minItems', 'maxItems', 'unevaluatedItems',
                          'patternProperties', 'additionalProperties', 'propertyNames', 'minProperties', 'maxProperties',
                          'dependentRequired', 'dependentSchemas', 'unevaluatedProperties');
        IF unjudged IS NOT NULL THEN
            RAISE NOTICE 'keywords of item "%" that are not judged any more: %', path, unjudged
                USING DETAIL = 'De-identification comes before validation.';
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.set_deid(text, text, text, jsonb) IS
    'Sets the de-identification method of an item (by JSON Pointer), or of "authored": keep, remove, redact, substitute, mask, generalize or dateShift, with its parameters and perhaps {"category": ...}';

CREATE FUNCTION epro_etl.deid_suits(form text, path text, method text, params jsonb DEFAULT '{}') RETURNS boolean
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_deid_suits';
COMMENT ON FUNCTION epro_etl.deid_suits(text, text, text, jsonb) IS
    'Whether set_deid() would take the method for what the current version of the form declares there, edit checks aside';

CREATE FUNCTION epro_etl.deid_kinds(form text, OUT location text, OUT holds text) RETURNS SETOF record
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_deid_kinds';
COMMENT ON FUNCTION epro_etl.deid_kinds(text) IS 'What a profile goes by where nobody has named a category: an item holds date, free text or other';

CREATE FUNCTION epro_etl.decrypt_answer(form text, path text, study text, answer text) RETURNS text
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_decrypt_answer';
COMMENT ON FUNCTION epro_etl.decrypt_answer(text, text, text, text) IS
    'What the method encrypt was given, for superusers; an error when the text is no answer of that item and study under this key (SQLSTATE 22023)';

CREATE TABLE epro_etl.deid_profile (
    profile         text NOT NULL CHECK (profile <> ''),
    category        text NOT NULL,
    rank            integer NOT NULL DEFAULT 1,
    method          text NOT NULL,
    params          jsonb NOT NULL DEFAULT '{}',
    shipped         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (profile, category, rank)
);
COMMENT ON TABLE epro_etl.deid_profile IS 'What apply_deid_profile() sets for a category: the first method, by rank, that the item suits';
COMMENT ON COLUMN epro_etl.deid_profile.category IS 'Of deid_category; or free text, authored or subject';
COMMENT ON COLUMN epro_etl.deid_profile.shipped IS 'Whether it came with the extension: such rows are not dumped';

INSERT INTO epro_etl.deid_profile (profile, category, rank, method, params, shipped)
    SELECT p.profile, v.category, v.rank, v.method, v.params::jsonb, true
    FROM unnest('{safe_harbor,gdpr_pseudonymous,limited_dataset}'::text[]) AS p (profile), LATERAL (
        -- what names a person goes; so does what nothing else suits
        SELECT c.category, 9, 'remove', '{}' FROM epro_etl.deid_category c
        UNION ALL SELECT 'free text', 9, 'remove', '{}'
        UNION ALL SELECT 'free text', 1, 'redact', '{}'
        UNION ALL SELECT w.category, w.rank, w.method, w.params FROM (VALUES
            ('safe_harbor', 'geographic', 1, 'generalize', '{"zip": 3}'),
            ('safe_harbor', 'dates', 1, 'generalize', '{"to": "year", "cap": 90}'),
            ('safe_harbor', 'dates', 2, 'generalize', '{"to": "age", "cap": 90}'),
            ('safe_harbor', 'authored', 1, 'generalize', '{"to": "year"}'),
            ('safe_harbor', 'subject', 1, 'pseudonymize', '{}'),
            ('gdpr_pseudonymous', 'geographic', 1, 'generalize', '{"zip": 2, "restricted": []}'),
            ('gdpr_pseudonymous', 'dates', 1, 'dateShift', '{}'),
            ('gdpr_pseudonymous', 'dates', 2, 'generalize', '{"to": "age", "cap": 90}'),
            ('gdpr_pseudonymous', 'ssn', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'medical record', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'health plan', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'account', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'license', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'vehicle', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'device', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'other', 1, 'cryptoHash', '{}'),
            ('gdpr_pseudonymous', 'authored', 1, 'dateShift', '{}'),
            ('limited_dataset', 'dates', 1, 'keep', '{}'),
            ('limited_dataset', 'other', 1, 'cryptoHash', '{}'),
            ('limited_dataset', 'authored', 1, 'keep', '{}')) AS w (profile, category, rank, method, params)
            WHERE w.profile = p.profile) AS v (category, rank, method, params);

CREATE FUNCTION epro_etl.apply_deid_profile(form text, profile text, categories jsonb DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    place record;
    chosen record;
    undecided bigint;
BEGIN
    IF form IS NULL OR apply_deid_profile.profile IS NULL OR categories IS NULL THEN
        RAISE EXCEPTION 'form, profile and categories must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT EXISTS (SELECT FROM epro_etl.deid_profile p WHERE p.profile = apply_deid_profile.profile) THEN
        RAISE EXCEPTION 'de-identification profile "%" does not exist', profile
            USING ERRCODE = 'undefined_object',
                  HINT = 'There are ' || coalesce((SELECT string_agg(DISTINCT p.profile, ', ') FROM epro_etl.deid_profile p), 'none') || '.';
    END IF;
    IF jsonb_typeof(categories) <> 'object' THEN
        RAISE EXCEPTION 'categories must be a JSON object' USING ERRCODE = 'invalid_parameter_value', HINT = 'For example {"/zip": "geographic"}.';
    END IF;
    FOR place IN SELECT k.key AS path, k.value FROM jsonb_each(categories) k ORDER BY k.key COLLATE "C" LOOP
        IF NOT epro_etl.deid_suits(form, place.path, 'remove') THEN
            RAISE EXCEPTION 'form "%" has no item at "%"', form, place.path USING ERRCODE = 'undefined_object';
        END IF;
        IF NOT EXISTS (SELECT FROM epro_etl.deid_category c WHERE to_jsonb(c.category) = place.value) THEN
            RAISE EXCEPTION 'the category of item "%" is none of the 18 identifiers of HIPAA', place.path
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'They are ' || (SELECT string_agg(c.category, ', ' ORDER BY c.paragraph) FROM epro_etl.deid_category c) || '.';
        END IF;
    END LOOP;

    -- a rule that is there, of the item or of a group around it, stays
    FOR place IN
        SELECT w.path, w.category FROM (
            SELECT k.key AS path, k.value AS category, 1 AS part, 0::bigint AS n FROM jsonb_each_text(categories) k
            UNION ALL
            SELECT i.location, CASE i.holds WHEN 'date' THEN 'dates' ELSE i.holds END, 2, i.n
                FROM epro_etl.deid_kinds(form) WITH ORDINALITY AS i (location, holds, n)
                WHERE i.holds <> 'other' AND NOT EXISTS (SELECT FROM jsonb_object_keys(categories) k WHERE k = i.location OR starts_with(i.location, k || '/'))
            UNION ALL SELECT v.place, v.place, 3, v.n FROM (VALUES ('authored', 1), ('subject', 2)) AS v (place, n) WHERE NOT categories ? v.place) AS w
        WHERE NOT EXISTS (SELECT FROM epro_etl.deid_rule d WHERE d.form = apply_deid_profile.form AND d.removed_at IS NULL
                          AND (d.path = w.path OR starts_with(w.path, d.path || '/')))
        ORDER BY w.part, w.n, w.path COLLATE "C"
    LOOP
        SELECT p.method, p.params INTO chosen FROM epro_etl.deid_profile p
            WHERE p.profile = apply_deid_profile.profile AND p.category = place.category
              AND epro_etl.deid_suits(apply_deid_profile.form, place.path, p.method, p.params)
            ORDER BY p.rank LIMIT 1;
        IF FOUND THEN
            PERFORM epro_etl.set_deid(form, place.path, chosen.method, chosen.params
                || CASE WHEN EXISTS (SELECT FROM epro_etl.deid_category c WHERE c.category = place.category)
                        THEN jsonb_build_object('category', place.category) ELSE '{}' END);
        END IF;
    END LOOP;
    SELECT count(*) INTO undecided FROM epro_etl.deid_report(form) r WHERE NOT r.decided;
    IF undecided > 0 THEN
        RAISE NOTICE 'form "%" has % items that nobody has decided about; they are kept', form, undecided
            USING HINT = 'epro_etl.deid_report() lists them; declare each with epro_etl.set_deid().';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.apply_deid_profile(text, text, jsonb) IS
    'Sets the methods of a profile for items without a rule: by the categories given by JSON Pointer, and for dates and free texts of themselves; safe_harbor, gdpr_pseudonymous or limited_dataset';

CREATE FUNCTION epro_etl.deid_report(form text, OUT location text, OUT name text, OUT type regtype, OUT method text,
                                     OUT params jsonb, OUT category text, OUT decided boolean) RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT r.location, r.name, r.type, r.method, r.params, r.category, r.decided FROM (
            SELECT 1 AS part, i.n, i.location, i.name, i.type,
                   CASE i.location WHEN '' THEN 'computed' ELSE i.deidentify END AS method,
                   coalesce(d.params, '{}') - 'category' AS params, d.params ->> 'category' AS category,
                   i.location = '' OR d.rule_id IS NOT NULL AS decided
                FROM epro_etl.form_items(deid_report.form) WITH ORDINALITY AS i (name, location, type, required, deidentify, n)
                LEFT JOIN LATERAL (SELECT g.rule_id, g.params FROM epro_etl.deid_rule g
                    WHERE g.form = deid_report.form AND g.removed_at IS NULL AND (g.path = i.location OR starts_with(i.location, g.path || '/'))
                    ORDER BY length(g.path) DESC LIMIT 1) d ON true
            UNION ALL
            SELECT 2, v.n, v.place, v.place, v.type, coalesce(d.method, v.method), coalesce(d.params, '{}') - 'category',
                   coalesce(d.params ->> 'category', v.category), d.rule_id IS NOT NULL OR v.place = 'subject'
                FROM (VALUES ('subject', 'other', 'derived pseudonym', 'text'::regtype, 1), ('authored', 'dates', 'keep', 'timestamptz', 2))
                     AS v (place, category, method, type, n)
                LEFT JOIN epro_etl.deid_rule d ON d.form = deid_report.form AND d.path = v.place AND d.removed_at IS NULL) r
        ORDER BY r.part, r.n;
    END;
COMMENT ON FUNCTION epro_etl.deid_report(text) IS
    'Every item of a form''s current version, and what a response says of itself: its type behind de-identification, method, parameters, HIPAA category, and whether anybody decided';

CREATE FUNCTION epro_etl.k_anonymity(relation regclass, columns text[], k integer DEFAULT 5,
                                     OUT size bigint, OUT classes bigint, OUT records bigint, OUT below_k boolean) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    list text;
    missing text;
BEGIN
    IF relation IS NULL OR cardinality(k_anonymity.columns) IS NULL OR cardinality(k_anonymity.columns) = 0 OR k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'relation, one column or more, and a k of 1 or more are needed' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT string_agg(quote_ident(c), ', ' ORDER BY n),
           min(c) FILTER (WHERE c IS NULL OR NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped))
        INTO list, missing FROM unnest(k_anonymity.columns) WITH ORDINALITY AS u (c, n);
    IF missing IS NOT NULL OR array_position(k_anonymity.columns, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'relation "%" has no column "%"', relation, missing USING ERRCODE = 'undefined_column';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT s.size, s.classes, s.size * s.classes, s.size < $1 FROM ('
        ' SELECT c.size, count(*) AS classes, min(c.size) OVER () AS least FROM (SELECT count(*) AS size FROM %s GROUP BY %s) c GROUP BY c.size) s'
        ' WHERE s.size < $1 OR s.size = s.least ORDER BY s.size', relation, list) USING k::bigint;
END $$;
COMMENT ON FUNCTION epro_etl.k_anonymity(regclass, text[], integer) IS
    'How many classes of equal values in these columns have how few rows: the smallest size, and all below k; counts only';

CREATE FUNCTION epro_etl.create_pipeline(name text, source regclass, columns jsonb DEFAULT NULL, options jsonb DEFAULT '{}')
    RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    roles constant text[] := '{id,study,form,subject,visit,authored,payload}';
    mapped jsonb := '{}';
    role text;
    given jsonb;
BEGIN
    IF create_pipeline.name IS NULL OR create_pipeline.source IS NULL THEN
        RAISE EXCEPTION 'name and source must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF octet_length(create_pipeline.name) NOT BETWEEN 1 AND 63 THEN
        RAISE EXCEPTION 'the name of a pipeline has 1 to 63 bytes' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(coalesce(create_pipeline.columns, '{}')) <> 'object' THEN
        RAISE EXCEPTION 'columns must be an object: {"role": "column"}' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (SELECT FROM epro_etl.pipeline p WHERE p.name = create_pipeline.name) THEN
        RAISE EXCEPTION 'pipeline "%" already exists', create_pipeline.name
            USING ERRCODE = 'duplicate_object', HINT = 'Drop it with epro_etl.drop_pipeline() or choose another name.';
    END IF;
    IF coalesce(create_pipeline.options, '{}') <> '{}' THEN
        RAISE EXCEPTION 'unknown pipeline option' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'This version has no pipeline options; see the settings epro_etl.workers and epro_etl.batch_size.';
    END IF;
    FOR role IN SELECT jsonb_object_keys(coalesce(create_pipeline.columns, '{}')) LOOP
        IF role <> ALL (roles) THEN
            RAISE EXCEPTION 'unknown role "%" in columns', role USING ERRCODE = 'invalid_parameter_value',
                HINT = 'The roles are id, study, form, subject, visit, authored and payload.';
        END IF;
    END LOOP;
    FOREACH role IN ARRAY roles LOOP
        given := create_pipeline.columns -> role;
        IF given IS NULL AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = create_pipeline.source
                                       AND a.attname = role AND a.attnum > 0 AND NOT a.attisdropped) THEN
            given := to_jsonb(role);
        END IF;
        IF given IS NULL AND role NOT IN ('visit', 'authored') THEN
            RAISE EXCEPTION 'source "%" has no column for the role "%"', create_pipeline.source, role
                USING ERRCODE = 'undefined_column',
                      HINT = format('Name it with columns => ''{"%s": "your_column"}''%s.', role,
                                    CASE WHEN role IN ('study', 'form')
                                         THEN format(' or give a constant: ''{"%s": {"value": "..."}}''', role) ELSE '' END);
        END IF;
        IF jsonb_typeof(given) = 'object' AND
           (role NOT IN ('study', 'form', 'visit') OR jsonb_typeof(given -> 'value') IS DISTINCT FROM 'string'
            OR given - 'value' <> '{}') THEN
            RAISE EXCEPTION 'role "%" cannot be that constant', role USING ERRCODE = 'invalid_parameter_value',
                HINT = 'study, form and visit may be constants: {"study": {"value": "ST01"}}.';
        END IF;
        IF jsonb_typeof(given) NOT IN ('object', 'string') THEN
            RAISE EXCEPTION 'role "%" must be the name of a column', role USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Write {"%s": "your_column"}.', role);
        END IF;
        IF jsonb_typeof(given) = 'string' AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = create_pipeline.source AND a.attname = given #>> '{}'
               AND a.attnum > 0 AND NOT a.attisdropped) THEN
            RAISE EXCEPTION 'source "%" has no column "%" for the role "%"', create_pipeline.source, given #>> '{}', role
                USING ERRCODE = 'undefined_column', HINT = 'Correct the name in columns.';
        END IF;
        IF given IS NOT NULL THEN
            mapped := mapped || jsonb_build_object(role, given);
        END IF;
    END LOOP;
    INSERT INTO epro_etl.pipeline (name, source, columns) VALUES (create_pipeline.name, create_pipeline.source, mapped);
    PERFORM epro_etl.compile_pipeline(create_pipeline.name);
END $$;
COMMENT ON FUNCTION epro_etl.create_pipeline(text, regclass, jsonb, jsonb) IS
    'Creates a pipeline over a staging table; columns maps the roles id, study, form, subject, visit, authored and payload to columns or constants';

CREATE FUNCTION epro_etl.drop_pipeline(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM epro_etl.pipeline p WHERE p.name = drop_pipeline.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'pipeline "%" does not exist', name
            USING ERRCODE = 'undefined_object', HINT = 'See epro_etl.pipeline.';
    END IF;
EXCEPTION
    WHEN foreign_key_violation THEN
        RAISE EXCEPTION 'the outbox has rows for sinks of pipeline "%"', name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Send them with epro_etl.deliver(), or give them up with DELETE FROM epro_etl.outbox.';
END $$;
COMMENT ON FUNCTION epro_etl.drop_pipeline(text) IS
    'Drops a pipeline and its list of sinks; source, sinks, ledger and quarantine stay as they are';

CREATE FUNCTION epro_etl.add_sink(pipeline text, form text, target regclass, shape text DEFAULT 'wide',
                                  columns jsonb DEFAULT NULL, condition text DEFAULT NULL,
                                  on_duplicate text DEFAULT 'reject', required boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    pipe bigint;
BEGIN
    SELECT p.pipeline_id INTO pipe FROM epro_etl.pipeline p WHERE p.name = pipeline;
    IF pipe IS NULL THEN
        RAISE EXCEPTION 'pipeline "%" does not exist', pipeline
            USING ERRCODE = 'undefined_object', HINT = 'Make it with epro_etl.create_pipeline().';
    END IF;
    IF NOT EXISTS (SELECT FROM epro_etl.form f WHERE f.name = add_sink.form) THEN
        RAISE EXCEPTION 'form "%" does not exist', add_sink.form
            USING ERRCODE = 'undefined_object', HINT = 'Register it with epro_etl.register_form().';
    END IF;
    IF target IS NULL THEN
        RAISE EXCEPTION 'target must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF coalesce(add_sink.shape, '') NOT IN ('wide', 'long') THEN
        RAISE EXCEPTION 'unknown shape "%"', add_sink.shape USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The shapes are wide, a row a response, and long, a row an item.';
    END IF;
    IF coalesce(add_sink.on_duplicate, '') NOT IN ('reject', 'ignore', 'latest') THEN
        RAISE EXCEPTION 'unknown on_duplicate "%"', add_sink.on_duplicate USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is reject: a response whose key the sink holds goes to quarantine; ignore: the row that is there stays, and the response counts as loaded; or latest: the one that was authored later stands, and the earlier row goes to epro_etl.superseded.';
    END IF;
    IF add_sink.on_duplicate = 'latest' AND NOT EXISTS (SELECT FROM epro_etl.pipeline p WHERE p.pipeline_id = pipe AND p.columns ? 'authored') THEN
        RAISE EXCEPTION 'which response of pipeline "%" is the latest cannot be told: its source has no column for the role "authored"', pipeline
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Map one with epro_etl.create_pipeline(columns => ''{"authored": "your_column"}'').';
    END IF;
    IF add_sink.required IS NULL THEN
        RAISE EXCEPTION 'required must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF add_sink.columns IS NOT NULL AND jsonb_typeof(add_sink.columns) <> 'object' THEN
        RAISE EXCEPTION 'columns must be an object: {"column": "item"}' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (SELECT FROM epro_etl.sink s WHERE s.pipeline_id = pipe AND s.form = add_sink.form
                 AND s.target = add_sink.target) THEN
        RAISE EXCEPTION '"%" is a sink of form "%" already', add_sink.target, add_sink.form
            USING ERRCODE = 'duplicate_object', HINT = 'To change it, call epro_etl.remove_sink() first.';
    END IF;
    IF EXISTS (SELECT FROM epro_etl.pipeline p WHERE p.pipeline_id = pipe AND p.source = add_sink.target) THEN
        RAISE EXCEPTION 'the source of a pipeline cannot be its sink' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Load into another table.';
    END IF;
    INSERT INTO epro_etl.sink (pipeline_id, form, target, shape, columns, matched, condition, on_duplicate, required)
        SELECT pipe, add_sink.form, add_sink.target, add_sink.shape, add_sink.columns,
               coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}'), add_sink.condition, add_sink.on_duplicate,
               add_sink.required
        FROM pg_attribute a
        CROSS JOIN LATERAL (SELECT coalesce(add_sink.columns ->> a.attname::text, a.attname) AS takes) t
        WHERE a.attrelid = add_sink.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
          AND (t.takes IN ('study', 'subject_key', 'form', 'form_version', 'visit', 'authored', 'source_id', 'run_id', 'key_version', 'loaded_at')
               OR CASE WHEN add_sink.shape = 'long' THEN t.takes IN ('item', 'item_no', 'location', 'value', 'value_number')
                  ELSE EXISTS (SELECT FROM epro_etl.form_items(add_sink.form) i WHERE lower(i.name) = lower(t.takes)) END);
    PERFORM epro_etl.compile_pipeline(pipeline);
    PERFORM epro_etl.tell_unstored(pipeline, add_sink.form);
END $$;
COMMENT ON FUNCTION epro_etl.add_sink(text, text, regclass, text, jsonb, text, text, boolean) IS
    'Adds your own relation as a sink of a form; columns are matched by name, or mapped with {"column": "item"}; in a long sink, with {"column": "value"} and the like; on_duplicate => ''ignore'' is for sinks that may be given a row twice, above all foreign tables; with ''latest'' a response takes the place of a row with its key that was authored earlier';

CREATE FUNCTION epro_etl.remove_sink(pipeline text, form text, target regclass DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM epro_etl.sink s USING epro_etl.pipeline p
        WHERE p.pipeline_id = s.pipeline_id AND p.name = remove_sink.pipeline AND s.form = remove_sink.form
          AND CASE WHEN remove_sink.target IS NULL
                   THEN NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.target)
                   ELSE s.target = remove_sink.target END;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is no sink of form "%" of pipeline "%"', coalesce(target::text, 'what is dropped'), form, pipeline
            USING ERRCODE = 'undefined_object', HINT = 'See epro_etl.sink.';
    END IF;
EXCEPTION
    WHEN foreign_key_violation THEN
        RAISE EXCEPTION 'the outbox has rows for % of pipeline "%"', coalesce(target::text, 'what is dropped'), pipeline
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Send them with epro_etl.deliver(), or give them up with DELETE FROM epro_etl.outbox.';
END $$;
COMMENT ON FUNCTION epro_etl.remove_sink(text, text, regclass) IS 'Takes a sink off a pipeline, or without a target those whose relation was dropped; a relation and its rows stay';

CREATE FUNCTION epro_etl.make_sink(pipeline text, form text, target text, shape text, schema name) RETURNS regclass
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    own constant text[] := '{study,subject_key,form,form_version,visit,authored,source_id,run_id,key_version,loaded_at,
                             ctid,xmin,xmax,cmin,cmax,tableoid}';
    parts text[] := parse_ident(target);
    quoted text;
    id_type text;
    list text;
    mapping jsonb;
    made regclass;
BEGIN
    IF cardinality(parts) = 1 THEN
        parts := schema::text || parts;
    END IF;
    SELECT string_agg(quote_ident(p), '.' ORDER BY n) INTO quoted FROM unnest(parts) WITH ORDINALITY AS u (p, n);
    SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) INTO id_type
        FROM epro_etl.pipeline p
        JOIN pg_catalog.pg_attribute a ON a.attrelid = p.source AND a.attname = (p.columns ->> 'id')
        WHERE p.name = make_sink.pipeline;
    IF id_type IS NULL THEN
        RAISE EXCEPTION 'pipeline "%" does not exist', pipeline
            USING ERRCODE = 'undefined_object', HINT = 'Make it with epro_etl.create_pipeline().';
    END IF;

    IF make_sink.shape = 'long' THEN
        EXECUTE pg_catalog.format('CREATE TABLE %s (source_id %s, study text, subject_key text NOT NULL,'
            ' form text NOT NULL, form_version text NOT NULL, visit text, authored timestamptz,'
            ' item text NOT NULL, item_no integer NOT NULL, value text, value_number numeric,'
            ' run_id bigint NOT NULL, key_version integer, loaded_at timestamptz NOT NULL, PRIMARY KEY (source_id, item))', quoted, id_type);
        made := quoted::regclass;
        PERFORM epro_etl.add_sink(make_sink.pipeline, make_sink.form, made, make_sink.shape);
        RETURN made;
    END IF;

    -- an item takes its own name, folded as SQL folds it, unless that is taken
    SELECT pg_catalog.string_agg(pg_catalog.format(', %I %s', c.column_name, c.type), '' ORDER BY c.n),
           pg_catalog.jsonb_object_agg(c.column_name, c.item)
        INTO list, mapping
        FROM (SELECT i.item, i.type, i.n,
                     CASE WHEN i.folded = ANY (own) OR pg_catalog.count(*) OVER (PARTITION BY i.folded) > 1
                            OR pg_catalog.octet_length(i.folded) > 63 OR i.folded ~ '^item_[0-9]+$'
                          THEN 'item_' || i.n ELSE i.folded END AS column_name
              FROM (SELECT f.name AS item, f.type::text AS type, f.n,
                           pg_catalog.lower(pg_catalog.replace(f.name, '.', '_')) AS folded
                    FROM epro_etl.form_items(make_sink.form) WITH ORDINALITY AS f (name, location, type, required, deidentify, n)
                    WHERE f.deidentify <> 'remove') i) c;

    EXECUTE pg_catalog.format('CREATE TABLE %s (source_id %s PRIMARY KEY, study text, subject_key text NOT NULL,'
        ' form text NOT NULL, form_version text NOT NULL, visit text, authored timestamptz%s,'
        ' run_id bigint NOT NULL, key_version integer, loaded_at timestamptz NOT NULL)', quoted, id_type, list);
    made := quoted::regclass;
    PERFORM epro_etl.add_sink(make_sink.pipeline, make_sink.form, made, make_sink.shape, mapping);
    RETURN made;
END $$;
COMMENT ON FUNCTION epro_etl.make_sink(text, text, text, text, name) IS
    'What create_sink() does, with the schema for a target that names none';

-- not pinned: where an unqualified target goes is for the caller's search path to say
CREATE FUNCTION epro_etl.create_sink(pipeline text, form text, target text, shape text DEFAULT 'wide') RETURNS regclass
    LANGUAGE sql VOLATILE
    RETURN epro_etl.make_sink($1, $2, $3, $4, pg_catalog.current_schema());
COMMENT ON FUNCTION epro_etl.create_sink(text, text, text, text) IS
    'Creates a table and adds it as a sink: wide, typed from the form, a column an item that is not removed; or long, a row an item';

CREATE FUNCTION epro_etl.make_context_server(server text, settings text, schema name) RETURNS regclass
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    parts text[] := coalesce(parse_ident(make_context_server.settings), ARRAY[make_context_server.server || '_settings']);
    handler name;
    quoted text;
    made regclass;
    grantee oid;
    heard boolean;
BEGIN
    IF make_context_server.server IS NULL THEN
        RAISE EXCEPTION 'server must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    -- the owner of the table can have it do things as whoever is told of a deadline
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = current_user
                   AND (r.rolsuper OR r.oid = (SELECT c.relowner FROM pg_class c WHERE c.oid = 'epro_etl.run_ledger'::regclass))) THEN
        RAISE EXCEPTION 'permission denied to add a server' USING ERRCODE = 'insufficient_privilege',
            HINT = 'Only a superuser or the owner of the extension may.';
    END IF;
    SELECT c.settings INTO made FROM epro_etl.context_server c WHERE c.server = make_context_server.server;
    IF epro_etl.context_server_of(made) = make_context_server.server AND make_context_server.settings IS NOT NULL
       AND made IS DISTINCT FROM to_regclass(make_context_server.settings) THEN
        RAISE EXCEPTION 'server "%" is told through "%" already', make_context_server.server, made
            USING ERRCODE = 'duplicate_object', HINT = 'See epro_etl.remove_context_server().';
    END IF;
    SELECT coalesce(h.proname, '') INTO handler FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
        LEFT JOIN pg_proc h ON h.oid = w.fdwhandler WHERE s.srvname = make_context_server.server;
    IF handler IS NULL THEN
        RAISE EXCEPTION 'server "%" does not exist', make_context_server.server
            USING ERRCODE = 'undefined_object', HINT = 'Make it with CREATE SERVER.';
    END IF;
    IF handler <> 'postgres_fdw_handler' THEN
        RAISE EXCEPTION 'server "%" cannot be told: it is not one of postgres_fdw', make_context_server.server
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Deadlines hold there as far as its foreign-data wrapper reacts to a cancel.';
    END IF;
    IF cardinality(parts) = 1 THEN
        IF make_context_server.schema IS NULL THEN
            RAISE EXCEPTION 'no schema has been selected to create the table of settings in'
                USING ERRCODE = 'invalid_schema_name', HINT = 'Name it with settings => ''schema.table''.';
        END IF;
        parts := make_context_server.schema::text || parts;
    END IF;
    IF parts[1] LIKE 'pg\_temp%' THEN
        RAISE EXCEPTION 'the table of settings must not be temporary' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT string_agg(quote_ident(p), '.' ORDER BY n) INTO quoted FROM unnest(parts) WITH ORDINALITY AS u (p, n);
    made := to_regclass(quoted);
    IF made IS NULL THEN
        EXECUTE format('CREATE FOREIGN TABLE %s (name text, setting text, reset_val text) SERVER %I'
                       ' OPTIONS (schema_name ''pg_catalog'', table_name ''pg_settings'')', quoted, make_context_server.server);
        EXECUTE format('COMMENT ON FOREIGN TABLE %s IS %L', quoted, 'Settings of the other server; epro_etl tells it deadlines through this table');
        -- whoever may use the server could make such a table too
        FOR grantee IN SELECT a.grantee FROM pg_foreign_server s, aclexplode(coalesce(s.srvacl, acldefault('S', s.srvowner))) a
                       WHERE s.srvname = make_context_server.server AND a.privilege_type = 'USAGE' LOOP
            EXECUTE format('GRANT SELECT, UPDATE (setting) ON %s TO %s', quoted, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END);
        END LOOP;
        made := quoted::regclass;
    ELSIF epro_etl.context_server_of(made) IS DISTINCT FROM make_context_server.server THEN
        RAISE EXCEPTION '"%" is there already, and cannot tell server "%"', made, make_context_server.server
            USING ERRCODE = 'duplicate_table', HINT = 'Drop it, or name another with settings => ''schema.table''.';
    END IF;

    BEGIN
        EXECUTE format('UPDATE ONLY %s SET setting = ''86399999'' WHERE name = ''statement_timeout''', made);
        EXECUTE format('SELECT setting <> reset_val FROM ONLY %s WHERE name = ''statement_timeout''', made) INTO heard;
        EXECUTE format('UPDATE ONLY %s SET setting = reset_val WHERE name = ''statement_timeout''', made);
    EXCEPTION
        WHEN OTHERS THEN
            RAISE EXCEPTION 'server "%" cannot be told: %', make_context_server.server, SQLERRM
                USING ERRCODE = SQLSTATE,
                      HINT = 'It must be a PostgreSQL server that can be reached, and the current user needs a user mapping for it.';
    END;
    IF heard IS NOT TRUE THEN
        RAISE EXCEPTION 'server "%" does not keep what it is told', make_context_server.server
            USING ERRCODE = 'feature_not_supported', HINT = 'It must be a PostgreSQL server.';
    END IF;
    INSERT INTO epro_etl.context_server (server, settings) VALUES (make_context_server.server, made)
        ON CONFLICT (server) DO UPDATE SET settings = excluded.settings, added_at = now(), added_by = session_user;
    RETURN made;
END $$;
COMMENT ON FUNCTION epro_etl.make_context_server(text, text, name) IS
    'What add_context_server() does, with the schema for a table whose name has none';

-- not pinned: where a table of an unqualified name goes is for the caller's search path to say
CREATE FUNCTION epro_etl.add_context_server(server text, settings text DEFAULT NULL) RETURNS regclass
    LANGUAGE sql VOLATILE
    RETURN epro_etl.make_context_server($1, $2, pg_catalog.current_schema());
COMMENT ON FUNCTION epro_etl.add_context_server(text, text) IS
    'Lets a server of postgres_fdw be told the remaining time, as its statement_timeout, and the request_id, in its application_name; makes the foreign table that it is told through, by default <server>_settings';

CREATE FUNCTION epro_etl.remove_context_server(server text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    gone regclass;
    found boolean := false;
BEGIN
    FOR gone IN DELETE FROM epro_etl.context_server c
                WHERE c.server = remove_context_server.server OR epro_etl.context_server_of(c.settings) = remove_context_server.server
                RETURNING c.settings LOOP
        found := true;
        IF epro_etl.context_server_of(gone) IS NOT NULL THEN
            EXECUTE format('DROP FOREIGN TABLE %s', gone);
        END IF;
    END LOOP;
    IF NOT found THEN
        RAISE EXCEPTION 'server "%" is not one that is told', remove_context_server.server
            USING ERRCODE = 'undefined_object', HINT = 'See epro_etl.context_server.';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.remove_context_server(text) IS
    'A server is not told any more; drops the foreign table that it was told through';

CREATE FUNCTION epro_etl.cancel_run(run_id bigint) RETURNS boolean
    LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(bool_or(pg_cancel_backend(k.pid)), false) FROM pg_locks k
    WHERE k.locktype = 'advisory' AND k.objsubid = 3
      AND k.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND k.classid::bigint = cancel_run.run_id >> 32 AND k.objid::bigint = cancel_run.run_id & 4294967295
      AND k.mode = 'ShareLock' AND k.granted;
$$;
COMMENT ON FUNCTION epro_etl.cancel_run(bigint) IS
    'Cancels a run that is going on; true if there was a worker to cancel; what was committed stays';

CREATE FUNCTION epro_etl.watch_source(pipeline text) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    source constant regclass := epro_etl.pipeline_source(watch_source.pipeline);
BEGIN
    IF source IS NULL THEN
        RAISE EXCEPTION 'pipeline must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = source
                                   AND t.tgfoid = 'epro_etl.wake_stream()'::regprocedure) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TRIGGER epro_etl_wake AFTER INSERT OR UPDATE ON %s'
                   ' FOR EACH STATEMENT EXECUTE FUNCTION epro_etl.wake_stream()', source);
    EXECUTE format('ALTER TRIGGER epro_etl_wake ON %s DEPENDS ON EXTENSION epro_etl', source);
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'commits into "%" will not wake the stream: %', source, SQLERRM
            USING DETAIL = 'It looks every epro_etl.naptime.',
                  HINT = 'Let the owner of the table call epro_etl.watch_source().';
END $$;
COMMENT ON FUNCTION epro_etl.watch_source(text) IS
    'Puts the trigger on a pipeline''s source that wakes its stream at each commit; dropping the extension drops it';

CREATE FUNCTION epro_etl.start_stream(pipeline text, stages jsonb DEFAULT NULL, queue_size integer DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM epro_etl.watch_source(start_stream.pipeline);
    IF NOT epro_etl.launch_stream(start_stream.pipeline, start_stream.stages, start_stream.queue_size) THEN
        RAISE NOTICE 'the stream of pipeline "%" is up already', pipeline
            USING DETAIL = 'If its stages or queue_size are others now, it begins anew with these.';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.start_stream(text, jsonb, integer) IS
    'Starts a pipeline''s stream when the transaction commits; stages cuts it into groups of workers, such as {"deidentify": 2, "validate": 3, "store": 1}';

CREATE FUNCTION epro_etl.requeue(pipeline text, run_id bigint DEFAULT NULL, source_ids text[] DEFAULT NULL,
                                 rule text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    source regclass;
    names text;
    reads text;
    moved bigint;
BEGIN
    SELECT p.source INTO source FROM epro_etl.pipeline p WHERE p.name = requeue.pipeline;
    IF source IS NULL THEN
        RAISE EXCEPTION 'pipeline "%" does not exist', requeue.pipeline
            USING ERRCODE = 'undefined_object', HINT = 'Make it with epro_etl.create_pipeline().';
    END IF;
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
           string_agg(CASE WHEN a.atttypid = 'jsonb'::regtype THEN format('q.original -> %L', a.attname)
                           ELSE format('(q.original ->> %L)::%s', a.attname, format_type(a.atttypid, a.atttypmod)) END,
                      ', ' ORDER BY a.attnum)
        INTO names, reads
        FROM pg_attribute a
        WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    BEGIN
    EXECUTE format(
        'WITH q AS (DELETE FROM epro_etl.quarantine q WHERE q.pipeline = $1'
        ' AND ($2 IS NULL OR q.run_id = $2) AND ($3 IS NULL OR q.source_id = ANY ($3))'
        ' AND ($4 IS NULL OR EXISTS (SELECT FROM epro_etl.finding f WHERE f.run_id = q.run_id'
        '      AND f.source_id = q.source_id AND f.rule = $4)) RETURNING q.*),'
        ' k AS (INSERT INTO epro_etl.requeued AS r (pipeline, source_id, first_try, tries)'
        '      SELECT DISTINCT ON (q.source_id) q.pipeline, q.source_id, q.first_try, q.tries FROM q'
        '      WHERE q.source_id IS NOT NULL ORDER BY q.source_id, q.quarantine_id DESC'
        '      ON CONFLICT (pipeline, source_id) DO UPDATE SET tries = excluded.tries)'
        ' INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM q',
        source, names, reads)
        USING requeue.pipeline, requeue.run_id, requeue.source_ids, requeue.rule;
    GET DIAGNOSTICS moved = ROW_COUNT;
    EXCEPTION
        WHEN insufficient_privilege OR undefined_table OR undefined_column THEN RAISE;
        WHEN OTHERS THEN
            -- the server's own message would quote the row
            RAISE EXCEPTION 'a quarantined row does not fit "%" (SQLSTATE %)', source, SQLSTATE
                USING ERRCODE = SQLSTATE, HINT = 'Correct quarantine.original; nothing was requeued.';
    END;
    RETURN moved;
END $$;
COMMENT ON FUNCTION epro_etl.requeue(text, bigint, text[], text) IS
    'Puts quarantined responses, as they are there now, back into staging: all of a pipeline, or of a run, by source_id, or by rule';

CREATE FUNCTION epro_etl.reconcile(run_id bigint, OUT measure text, OUT ledger bigint, OUT relations bigint, OUT agrees boolean)
    RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    r record;
    s record;
    rows bigint;
    total bigint := 0;
BEGIN
    SELECT h.* INTO r FROM epro_etl.run_history h WHERE h.run_id = reconcile.run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % does not exist', run_id USING ERRCODE = 'undefined_object', HINT = 'See epro_etl.run_history.';
    END IF;
    measure := 'claimed = loaded + rejected + duplicate + deferred';
    ledger := r.claimed;
    relations := r.loaded + r.rejected + r.duplicate + r.deferred;
    agrees := ledger = relations;
    RETURN NEXT;

    -- a response is in all sinks of its form that have no condition: count it
    -- in one of them, and in a long one once. Where that cannot be told, say
    -- NULL: all have conditions; a wide one with a condition takes what leaves
    -- the long one empty; a row that was there already has the number of an
    -- earlier run; or a relation without a column for the form has responses of
    -- other forms that are counted elsewhere. Where the latest response stands,
    -- a row may have been superseded since, by whatever sink has that relation;
    -- and one that was sent again is a finding, and no row.
    FOR s IN WITH sinks AS (
                 SELECT k.sink_id, k.form, k.target, k.shape, k.condition, k.on_duplicate,
                        bool_or(k.shape = 'wide') OVER (PARTITION BY k.form) AS has_wide,
                        (SELECT jsonb_object_agg(coalesce(k.columns ->> a.attname::text, a.attname), a.attname)
                           FROM pg_attribute a WHERE a.attrelid = k.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS held_by
                 FROM epro_etl.sink k JOIN epro_etl.pipeline p USING (pipeline_id)
                 WHERE p.name = r.pipeline),
             chosen AS (
                 SELECT DISTINCT ON (form) *, condition IS NULL AND on_duplicate <> 'ignore' AND (shape = 'wide' OR NOT has_wide) AS complete
                 FROM sinks ORDER BY form, condition IS NOT NULL, on_duplicate = 'ignore', on_duplicate = 'latest', shape = 'long', sink_id)
             SELECT DISTINCT ON (c.target, CASE WHEN c.held_by ? 'form' THEN c.form END) c.target, c.form, c.shape,
                    c.held_by ->> 'run_id' AS run_column, c.held_by ->> 'form' AS form_column, c.held_by ->> 'source_id' AS id_column,
                    c.complete AND c.held_by ? 'run_id' AND (c.shape = 'wide' OR c.held_by ? 'source_id')
                    AND (c.held_by ? 'form' OR NOT EXISTS (
                         SELECT FROM sinks o JOIN chosen e USING (form) WHERE o.target = c.target AND e.target <> c.target)) AS countable
             FROM chosen c ORDER BY c.target, CASE WHEN c.held_by ? 'form' THEN c.form END, countable LOOP
        IF s.countable IS NOT TRUE THEN
            total := NULL;
            EXIT;
        END IF;
        EXECUTE format('SELECT count(%s) FROM %s WHERE %I = $1 AND %s',
                       CASE s.shape WHEN 'long' THEN format('DISTINCT %I', s.id_column) ELSE '*' END, s.target, s.run_column,
                       CASE WHEN s.form_column IS NULL THEN 'true' ELSE format('%I::text = $2', s.form_column) END)
            INTO rows USING reconcile.run_id, s.form;
        total := total + rows
            + (SELECT count(*) FROM epro_etl.superseded u WHERE u.earlier_run_id = reconcile.run_id
               AND (u.sink_id IN (SELECT k.sink_id FROM epro_etl.sink k WHERE k.target = s.target)
                    OR u.target = (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = s.target))
               AND (s.form_column IS NULL OR u."row" ->> s.form_column = s.form))
            + (SELECT count(*) FROM epro_etl.finding f WHERE f.run_id = reconcile.run_id AND f.kind = 'constraint' AND f.severity = 'information'
               AND f.rule IN (SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = s.target)
               AND (s.form_column IS NULL OR f.form = s.form));
    END LOOP;
    measure := 'loaded = rows in sinks';
    ledger := CASE WHEN r.dry_run THEN 0 ELSE r.loaded END;
    relations := total;
    agrees := ledger = relations;
    RETURN NEXT;

    measure := 'rejected + duplicate = rows in quarantine';
    ledger := CASE WHEN r.dry_run THEN 0 ELSE r.rejected + r.duplicate END;
    SELECT count(*) INTO relations FROM epro_etl.quarantine q WHERE q.run_id = reconcile.run_id;
    agrees := ledger = relations;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION epro_etl.reconcile(bigint) IS
    'Compares a run''s ledger with itself and with the tables as they are now; rows requeued or deleted since are missing there';

COMMENT ON FUNCTION epro_etl.wait_run(bigint, interval) IS
    'Waits for a run and returns its row; when the timeout is over, as it stands, with status running';

--
-- Who takes part in a study: the three hops of study_participants(), each of them
-- an own table unless set_hop() names another relation.  So there are no foreign
-- keys between them.
--

-- unlike a CHECK of the table, a domain does not quote what it refuses (COPY does)
CREATE DOMAIN epro_etl.subject_key AS text COLLATE "C" CHECK (VALUE ~ '^([0-9a-f]{64}|[0-9a-f]{32})$');
COMMENT ON DOMAIN epro_etl.subject_key IS 'A subject_key as runs make them: 64 hexadecimal digits in lower case, or 32 of a random code';
REVOKE ALL ON TYPE epro_etl.subject_key FROM PUBLIC;

CREATE TABLE epro_etl.study (
    study           text PRIMARY KEY CHECK (study <> ''),
    title           text,
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE epro_etl.study IS 'Studies; a role sees those of which a site is open to it';

CREATE TABLE epro_etl.participant (
    study           text NOT NULL,
    subject_key     epro_etl.subject_key NOT NULL,
    site            text NOT NULL,
    status          text,
    enrolled_on     date,
    PRIMARY KEY (study, subject_key)
);
COMMENT ON TABLE epro_etl.participant IS 'Participants of studies by their pseudonym; a role sees those at sites that are open to it';

CREATE TABLE epro_etl.site_access (
    study           text NOT NULL,
    site            text NOT NULL,
    role            name NOT NULL,
    granted_at      timestamptz NOT NULL DEFAULT now(),
    granted_by      text NOT NULL DEFAULT session_user,
    PRIMARY KEY (study, site, role)
);
COMMENT ON TABLE epro_etl.site_access IS 'Which sites of a study are open to a role and its members; a role sees its own';
COMMENT ON COLUMN epro_etl.site_access.role IS 'Name of a role; a row whose role is not there opens nothing';

-- Reading is by role. Who may write is said by privileges; a policy made later
-- would be lost in a dump, since these tables are the extension's.
ALTER TABLE epro_etl.study ENABLE ROW LEVEL SECURITY;
ALTER TABLE epro_etl.participant ENABLE ROW LEVEL SECURITY;
ALTER TABLE epro_etl.site_access ENABLE ROW LEVEL SECURITY;
CREATE POLICY reading ON epro_etl.site_access FOR SELECT
    USING (role = ANY (ARRAY(SELECT r.rolname FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'USAGE'))));
CREATE POLICY reading ON epro_etl.participant FOR SELECT
    USING (EXISTS (SELECT FROM epro_etl.site_access a WHERE a.study = participant.study AND a.site = participant.site));
CREATE POLICY reading ON epro_etl.study FOR SELECT
    USING (EXISTS (SELECT FROM epro_etl.site_access a WHERE a.study = study.study));
CREATE POLICY adding ON epro_etl.study FOR INSERT WITH CHECK (true);
CREATE POLICY adding ON epro_etl.participant FOR INSERT WITH CHECK (true);
CREATE POLICY adding ON epro_etl.site_access FOR INSERT WITH CHECK (true);
CREATE POLICY changing ON epro_etl.study FOR UPDATE USING (true);
CREATE POLICY changing ON epro_etl.participant FOR UPDATE USING (true);
CREATE POLICY changing ON epro_etl.site_access FOR UPDATE USING (true);
CREATE POLICY removing ON epro_etl.study FOR DELETE USING (true);
CREATE POLICY removing ON epro_etl.participant FOR DELETE USING (true);
CREATE POLICY removing ON epro_etl.site_access FOR DELETE USING (true);

CREATE TABLE epro_etl.hop (
    hop             text PRIMARY KEY CHECK (hop IN ('study', 'participants', 'permission')),
    relation        regclass NOT NULL,
    columns         jsonb NOT NULL,
    timeout         interval CHECK (timeout > '0'),
    set_at          timestamptz NOT NULL DEFAULT now(),
    set_by          text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE epro_etl.hop IS 'Relations that study_participants() asks instead of the extension''s own tables';
COMMENT ON COLUMN epro_etl.hop.columns IS 'What the relation calls each of our columns';

CREATE FUNCTION epro_etl.set_hop(hop text, relation regclass, columns jsonb DEFAULT NULL, timeout interval DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    ours constant text[] := CASE set_hop.hop WHEN 'study' THEN '{study}'::text[]
                                             WHEN 'participants' THEN '{study,subject_key,site,status,enrolled_on}'
                                             WHEN 'permission' THEN '{study,site,role}' END;
    mapped jsonb := '{}';
    kind "char";
    name text;
    theirs text;
    fits boolean;
BEGIN
    IF ours IS NULL THEN
        RAISE EXCEPTION 'unknown hop "%"', set_hop.hop
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The hops are study, participants and permission.';
    END IF;
    IF set_hop.relation IS NULL THEN
        IF set_hop.columns IS NOT NULL OR set_hop.timeout IS NOT NULL THEN
            RAISE EXCEPTION 'columns and timeout are those of a relation' USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Name one; the extension''s own table is %s.', CASE set_hop.hop
                    WHEN 'study' THEN 'epro_etl.study' WHEN 'participants' THEN 'epro_etl.participant' ELSE 'epro_etl.site_access' END);
        END IF;
        DELETE FROM epro_etl.hop h WHERE h.hop = set_hop.hop;
        RETURN;
    END IF;
    SELECT c.relkind INTO kind FROM pg_class c WHERE c.oid = set_hop.relation;
    IF kind IS NULL OR kind NOT IN ('r', 'p', 'v', 'm', 'f') THEN
        RAISE EXCEPTION '"%" cannot be a hop', set_hop.relation
            USING ERRCODE = 'wrong_object_type', HINT = 'A hop is a table, a view or a foreign table.';
    END IF;
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = set_hop.relation AND c.relpersistence = 't') THEN
        RAISE EXCEPTION '"%" cannot be a hop: it is temporary', set_hop.relation
            USING ERRCODE = 'wrong_object_type', HINT = 'A hop is there for all callers.';
    END IF;
    IF set_hop.timeout <= '0' THEN
        RAISE EXCEPTION 'timeout must be longer than zero' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(coalesce(set_hop.columns, '{}')) <> 'object' THEN
        RAISE EXCEPTION 'columns must be an object: {"subject_key": "your_column"}' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR name IN SELECT jsonb_object_keys(coalesce(set_hop.columns, '{}')) LOOP
        IF name <> ALL (ours) THEN
            RAISE EXCEPTION 'hop "%" has no column "%"', set_hop.hop, name USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Its columns are %s; columns maps these to yours.', array_to_string(ours, ', '));
        END IF;
        IF jsonb_typeof(set_hop.columns -> name) <> 'string' THEN
            RAISE EXCEPTION 'column "%" must be mapped to the name of a column', name USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Write {"%s": "your_column"}.', name);
        END IF;
    END LOOP;
    FOREACH name IN ARRAY ours LOOP
        theirs := coalesce(set_hop.columns ->> name, name);
        SELECT CASE WHEN name = 'enrolled_on' THEN 'date'::regtype IN (t.oid, t.typbasetype) ELSE t.typcategory = 'S' END INTO fits
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = set_hop.relation AND a.attname = theirs AND a.attnum > 0 AND NOT a.attisdropped;
        IF NOT FOUND THEN
            RAISE EXCEPTION '"%" has no column "%" for hop "%"', set_hop.relation, theirs, set_hop.hop
                USING ERRCODE = 'undefined_column', HINT = format('Name it with columns => ''{"%s": "your_column"}''.', name);
        END IF;
        IF NOT fits THEN
            RAISE EXCEPTION 'column "%" of "%" does not fit "%" of hop "%"', theirs, set_hop.relation, name, set_hop.hop
                USING ERRCODE = 'datatype_mismatch', HINT = 'enrolled_on is a date, the others are texts; a view can cast yours.';
        END IF;
        mapped := mapped || jsonb_build_object(name, theirs);
    END LOOP;
    INSERT INTO epro_etl.hop AS h (hop, relation, columns, timeout) VALUES (set_hop.hop, set_hop.relation, mapped, set_hop.timeout)
        ON CONFLICT (hop) DO UPDATE SET relation = excluded.relation, columns = excluded.columns, timeout = excluded.timeout,
                                        set_at = now(), set_by = session_user;
    IF set_hop.hop = 'permission' AND set_hop.relation <> 'epro_etl.site_access'::regclass AND (
        SELECT count(*) FROM epro_etl.hop h WHERE h.hop IN ('study', 'participants')
           AND h.relation NOT IN ('epro_etl.study'::regclass, 'epro_etl.participant'::regclass)) < 2 THEN
        RAISE NOTICE 'row security of epro_etl.study and epro_etl.participant goes by epro_etl.site_access, not by "%"', set_hop.relation
            USING HINT = 'Set the other hops too, or keep site_access as well.';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.set_hop(text, regclass, jsonb, interval) IS
    'Has study_participants() ask a relation, local or foreign, for a hop (study, participants, permission), within a timeout of its own; columns maps names: {"subject_key": "your_column"}; NULL: the own table again';

CREATE FUNCTION epro_etl.study_participants(study text, timeout interval DEFAULT NULL)
    RETURNS TABLE (study text, subject_key text, site text, status text, enrolled_on date)
    LANGUAGE c STABLE
    AS 'MODULE_PATHNAME', 'epro_etl_study_participants';
COMMENT ON FUNCTION epro_etl.study_participants(text, interval) IS
    'Participants of a study, by pseudonym, at the sites that are open to the caller: asks study, participants and permission in turn, as the caller, within one deadline; EP001 names the hop that was too slow';

--
-- CDISC ODM 1.3: a MetaDataVersion becomes forms of the kind that is there
-- already (a JSON Schema and edit checks) and a report with a row a construct.
-- odm_read() alone sees XML; what it returns is plain jsonb.
--

CREATE TABLE epro_etl.form_import (
    import_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    form            text NOT NULL,
    version         text NOT NULL,
    checks          bigint[] NOT NULL,
    report          jsonb NOT NULL,
    imported_at     timestamptz NOT NULL DEFAULT now(),
    imported_by     text NOT NULL DEFAULT session_user
);
CREATE INDEX form_import_form ON epro_etl.form_import (form, import_id);
COMMENT ON TABLE epro_etl.form_import IS 'Imports of forms from ODM: what became of each construct; the newest of a form is current';
COMMENT ON COLUMN epro_etl.form_import.checks IS 'check_id of the edit checks that the import made or kept; the next import of the form retires them';

CREATE VIEW epro_etl.import_report AS
SELECT i.form, i.version, r.construct, r.oid, r.status, r.detail
FROM epro_etl.form_import i
CROSS JOIN LATERAL ROWS FROM (pg_catalog.jsonb_to_recordset(i.report) AS (construct text, oid text, status text, detail text)) WITH ORDINALITY
    AS r (construct, oid, status, detail, n)
WHERE i.import_id = (SELECT pg_catalog.max(l.import_id) FROM epro_etl.form_import l WHERE l.form = i.form)
ORDER BY i.form, r.n;
COMMENT ON VIEW epro_etl.import_report IS 'A row a construct of each form that came from ODM: imported, or not imported with the reason; of the newest import';

CREATE FUNCTION epro_etl.explain_form(form text, OUT step bigint, OUT stage text, OUT location text, OUT rule text, OUT severity text, OUT says text)
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT row_number() OVER (ORDER BY a.part, a.n), a.stage, a.location, a.rule, a.severity, a.says FROM (
            SELECT CASE WHEN r.stage = 'not imported' THEN 6 ELSE 1 END AS part, r.n, r.stage, r.location, r.rule, r.severity, r.says
                FROM epro_etl.form_rules(explain_form.form) WITH ORDINALITY AS r (stage, location, rule, severity, says, n)
            UNION ALL
            -- scores before the checks, which can read them; lookups last
            SELECT CASE WHEN c.computes THEN 2 WHEN c.timeout IS NULL THEN 3 ELSE 4 END, c.check_id,
                   CASE WHEN c.computes THEN 'score' WHEN c.timeout IS NULL THEN 'check' ELSE 'lookup' END, '', c.check_name,
                   CASE WHEN NOT c.computes THEN
                       coalesce((SELECT o.severity FROM epro_etl.severity_overlay o
                                 WHERE o.form = c.form AND o.location = c.check_name AND o.removed_at IS NULL AND now() >= o.valid_from AND now() < o.valid_until
                                 ORDER BY o.overlay_id DESC LIMIT 1), c.severity) END,
                   c.expression || coalesce(' WHEN ' || c.condition, '') ||
                       coalesce(' WITHIN ' || c.timeout || ' OR ' || c.on_timeout, '')
                FROM epro_etl.edit_check c WHERE c.form = explain_form.form AND c.removed_at IS NULL
            UNION ALL
            SELECT 5, t.threshold_id, 'run', '', t.check_name, NULL,
                   format('held if more than %s of %s responses or more break %s', t.max_ratio, t.minimum, t.rule)
                FROM epro_etl.batch_threshold t WHERE t.form = explain_form.form AND t.removed_at IS NULL
            UNION ALL
            -- of ODM, if the current version came from it
            SELECT 7, row_number() OVER (), 'not imported', r.oid, r.construct, NULL, r.detail
                FROM epro_etl.import_report r
                WHERE r.form = explain_form.form AND r.status = 'not imported'
                  AND r.version = (SELECT f.version FROM epro_etl.form f WHERE f.name = explain_form.form ORDER BY f.form_id DESC LIMIT 1)) a
            ORDER BY 1;
    END;
COMMENT ON FUNCTION epro_etl.explain_form(text) IS 'What was compiled of a form''s current version, in the order in which a response meets it: items, de-identification, normalisation, rules by the JSON Pointers that set_severity() takes, scores, edit checks, lookups, what holds a whole run; then what was not imported';

CREATE FUNCTION epro_etl.odm_read(definition xml) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source constant text := definition::text;
    -- the text in English, else in the first language that has one
    said constant text := 'string((%1$s/o:TranslatedText[lang("en")][normalize-space()] | %1$s/o:TranslatedText[normalize-space()]'
                          '[not(../o:TranslatedText[lang("en")][normalize-space()])])[1])';
    question constant text := format(said, 'o:Question');
    description constant text := format(said, 'o:Description');
    message constant text := format(said, 'o:ErrorMessage');
    meaning constant text := format(said, 'o:Decode');
    ns text;
    versions text[];
    odm jsonb;
BEGIN
    -- before anything is parsed: entities, external or ten levels deep, need a DOCTYPE
    IF source LIKE '%<!DOCTYPE%' OR source LIKE '%<!ENTITY%' THEN
        RAISE EXCEPTION 'the ODM document has a DOCTYPE or an entity declaration' USING ERRCODE = 'invalid_xml_document',
            HINT = 'Remove it, also from comments: ODM needs none, and entities can read files or fill the memory.';
    END IF;
    IF octet_length(source) > 16777216 THEN
        RAISE EXCEPTION 'the ODM document is larger than 16 MB' USING ERRCODE = 'program_limit_exceeded',
            HINT = 'Pass the MetaDataVersion without clinical data.';
    END IF;
    IF NOT xml_is_well_formed_document(source) THEN
        RAISE EXCEPTION 'the definition is not one well-formed XML document' USING ERRCODE = 'invalid_xml_document',
            HINT = 'Pass a whole ODM file, or its MetaDataVersion element.';
    END IF;
    ns := (xpath('namespace-uri(/*)', definition))[1]::text;
    IF ns IN ('http://www.cdisc.org/ns/odm/v2.0') THEN
        RAISE EXCEPTION 'ODM 2.0 is not supported' USING ERRCODE = 'feature_not_supported',
            HINT = 'Export the metadata as ODM 1.3.2.';
    END IF;
    IF ns IS NULL OR ns NOT IN ('http://www.cdisc.org/ns/odm/v1.3', 'http://www.cdisc.org/ns/odm/v1.2') THEN
        RAISE EXCEPTION 'the document is not CDISC ODM 1.3' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The namespace of its first element must be http://www.cdisc.org/ns/odm/v1.3 (or v1.2).';
    END IF;
    versions := xpath('//o:MetaDataVersion/@OID', definition, ARRAY[ARRAY['o', ns]])::text[];
    IF cardinality(versions) <> 1 THEN
        RAISE EXCEPTION 'the ODM document has % MetaDataVersions, not one', cardinality(versions) USING ERRCODE = 'invalid_parameter_value',
            HINT = coalesce('Pass one of them: ' || nullif(array_to_string(versions, ', '), '') || '.', 'Pass an ODM file of metadata.');
    END IF;

    odm := jsonb_build_object('namespace', ns, 'forms', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:FormDef' PASSING definition COLUMNS
            n FOR ORDINALITY, oid text PATH '@OID', name text PATH '@Name', repeating text PATH '@Repeating', said text PATH description) t));
    odm := odm || jsonb_build_object('group_refs', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:FormDef/o:ItemGroupRef' PASSING definition COLUMNS
            n FOR ORDINALITY, form text PATH '../@OID', "group" text PATH '@ItemGroupOID', mandatory text PATH '@Mandatory',
            place numeric PATH '@OrderNumber', exception text PATH '@CollectionExceptionConditionOID') t));
    odm := odm || jsonb_build_object('groups', (
        SELECT jsonb_agg(to_jsonb(t)) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:ItemGroupDef' PASSING definition COLUMNS
            oid text PATH '@OID', name text PATH '@Name', repeating text PATH '@Repeating') t));
    odm := odm || jsonb_build_object('item_refs', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:ItemGroupDef/o:ItemRef' PASSING definition COLUMNS
            n FOR ORDINALITY, "group" text PATH '../@OID', item text PATH '@ItemOID', mandatory text PATH '@Mandatory', place numeric PATH '@OrderNumber',
            exception text PATH '@CollectionExceptionConditionOID', method text PATH '@MethodOID') t));
    odm := odm || jsonb_build_object('items', (
        SELECT jsonb_agg(to_jsonb(t)) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:ItemDef' PASSING definition COLUMNS
            oid text PATH '@OID', name text PATH '@Name', type text PATH '@DataType', length text PATH '@Length', digits text PATH '@SignificantDigits',
            codelist text PATH 'o:CodeListRef/@CodeListOID', question text PATH question, said text PATH description) t));
    odm := odm || jsonb_build_object('item_units', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:ItemDef/o:MeasurementUnitRef' PASSING definition COLUMNS
            n FOR ORDINALITY, item text PATH '../@OID', unit text PATH '@MeasurementUnitOID') t));
    odm := odm || jsonb_build_object('ranges', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:ItemDef/o:RangeCheck' PASSING definition COLUMNS
            n FOR ORDINALITY, item text PATH '../@OID', at integer PATH 'count(preceding-sibling::o:RangeCheck)', comparator text PATH '@Comparator',
            softhard text PATH '@SoftHard', unit text PATH 'o:MeasurementUnitRef/@MeasurementUnitOID', message text PATH message) t));
    odm := odm || jsonb_build_object('range_values', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:RangeCheck/o:CheckValue' PASSING definition COLUMNS
            n FOR ORDINALITY, item text PATH '../../@OID', at integer PATH 'count(../preceding-sibling::o:RangeCheck)', value text PATH 'string(.)') t));
    odm := odm || jsonb_build_object('codelists', (
        SELECT jsonb_agg(to_jsonb(t)) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:CodeList' PASSING definition COLUMNS
            oid text PATH '@OID', name text PATH '@Name', external integer PATH 'count(o:ExternalCodeList)') t));
    odm := odm || jsonb_build_object('codes', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:CodeList/o:CodeListItem | //o:CodeList/o:EnumeratedItem'
            PASSING definition COLUMNS n FOR ORDINALITY, codelist text PATH '../@OID', value text PATH '@CodedValue', meaning text PATH meaning) t));
    odm := odm || jsonb_build_object('units', (
        SELECT jsonb_agg(to_jsonb(t)) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:MeasurementUnit' PASSING definition COLUMNS
            oid text PATH '@OID', name text PATH '@Name') t));
    odm := odm || jsonb_build_object('symbols', (
        SELECT jsonb_agg(to_jsonb(t)) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:MeasurementUnit/o:Symbol/o:TranslatedText[normalize-space()]'
            PASSING definition COLUMNS unit text PATH '../../@OID', symbol text PATH 'normalize-space(.)') t));
    odm := odm || jsonb_build_object('rules', (
        SELECT jsonb_agg(to_jsonb(t)) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:ConditionDef | //o:MethodDef' PASSING definition COLUMNS
            kind text PATH 'local-name(.)', oid text PATH '@OID', name text PATH '@Name', type text PATH '@Type', said text PATH description) t));
    odm := odm || jsonb_build_object('expressions', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY n) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:FormalExpression' PASSING definition COLUMNS
            n FOR ORDINALITY, kind text PATH 'local-name(..)', oid text PATH 'string(../@OID)', item text PATH 'string(../../@OID)',
            at integer PATH 'count(../preceding-sibling::o:RangeCheck)', context text PATH '@Context', expression text PATH 'string(.)') t));
    odm := odm || jsonb_build_object('form_conditions', (
        SELECT jsonb_agg(DISTINCT t.oid) FROM XMLTABLE(XMLNAMESPACES (ns AS o), '//o:FormRef[@CollectionExceptionConditionOID]' PASSING definition COLUMNS
            oid text PATH '@CollectionExceptionConditionOID') t));
    -- what else there is, by name: the report leaves nothing out
    odm := odm || jsonb_build_object('elements', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY t.name, t.ns) FROM (
            SELECT x.name, x.ns, count(*) AS n FROM XMLTABLE('//*' PASSING definition COLUMNS
                name text PATH 'local-name(.)', ns text PATH 'namespace-uri(.)') x GROUP BY 1, 2) t));
    odm := odm || jsonb_build_object('attributes', (
        SELECT jsonb_agg(to_jsonb(t) ORDER BY t.name) FROM (
            SELECT x.element || '/@' || x.name AS name, count(*) AS n FROM XMLTABLE('//@*' PASSING definition COLUMNS
                element text PATH 'local-name(..)', name text PATH 'name(.)') x GROUP BY 1) t));
    -- an empty list rather than null
    RETURN (SELECT jsonb_object_agg(e.key, CASE e.value WHEN 'null' THEN '[]' ELSE e.value END) FROM jsonb_each(odm) e);
END $$;
COMMENT ON FUNCTION epro_etl.odm_read(xml) IS
    'The one MetaDataVersion of an ODM 1.3 or 1.2 document as lists of plain values; refuses ODM 2.0, any DOCTYPE, and more than 16 MB (SQLSTATEs 0A000, 2200M, 54000)';

CREATE FUNCTION epro_etl.odm_type(data_type text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mm constant text := '(?:0[1-9]|1[0-2])';
    dd constant text := '(?:0[1-9]|[12][0-9]|3[01])';
    hh constant text := '(?:[01][0-9]|2[0-3])';
    sixty constant text := '[0-5][0-9]';
    second constant text := '[0-5][0-9](?:\.[0-9]+)?';
    zone constant text := '(?:Z|[+-]' || hh || ':' || sixty || ')';
    -- a day of the Gregorian calendar
    day constant text := '(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))'
                         '|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)';
    clock constant text := hh || ':' || sixty || ':' || second;
    partial_clock constant text := '(?:' || hh || '(?::' || sixty || ')?|' || clock || ')' || zone || '?';
    partial constant text := '(?:[0-9]{4}(?:-' || mm || ')?|' || day || '(?:T' || partial_clock || ')?)';
    incomplete_date constant text := '(?:[0-9]{4}|-)-(?:' || mm || '|-)-(?:' || dd || '|-)';
    incomplete_time constant text := '(?:' || hh || '|-):(?:' || sixty || '|-):(?:' || second || '|-)(?:' || zone || '|-)?';
    duration constant text := '[+-]?P(?:[0-9]+W|(?=[0-9T])(?:[0-9]+Y)?(?:[0-9]+M)?(?:[0-9]+D)?'
                              '(?:T(?=[0-9])(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:\.[0-9]+)?S)?)?)';
    pattern text;
BEGIN
    CASE data_type
        WHEN 'integer' THEN RETURN '{"family": "integer", "schema": {"type": "integer"}}';
        WHEN 'float', 'double', 'decimal' THEN RETURN '{"family": "number", "schema": {"type": "number"}}';
        WHEN 'text', 'string' THEN RETURN '{"family": "text", "schema": {"type": "string"}}';
        WHEN 'boolean' THEN RETURN '{"family": "boolean", "schema": {"type": "boolean"}}';
        WHEN 'date' THEN RETURN '{"family": "date", "schema": {"type": "string", "format": "date"}}';
        WHEN 'time' THEN pattern := clock || zone || '?';
        WHEN 'datetime' THEN pattern := day || 'T' || clock || zone || '?';
        WHEN 'partialDate' THEN pattern := '(?:[0-9]{4}(?:-' || mm || ')?|' || day || ')';
        WHEN 'partialTime' THEN pattern := partial_clock;
        WHEN 'partialDatetime' THEN pattern := partial;
        WHEN 'incompleteDate' THEN pattern := incomplete_date;
        WHEN 'incompleteTime' THEN pattern := incomplete_time;
        WHEN 'incompleteDatetime' THEN pattern := incomplete_date || '(?:T' || incomplete_time || ')?';
        WHEN 'durationDatetime' THEN pattern := duration;
        WHEN 'intervalDatetime' THEN pattern := '(?:' || partial || '/(?:' || partial || '|' || duration || ')|' || duration || '/' || partial || ')';
        WHEN 'hexBinary' THEN pattern := '(?:[0-9a-fA-F]{2})*';
        WHEN 'base64Binary' THEN pattern := '(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?';
        WHEN 'hexFloat' THEN pattern := '[0-9a-fA-F]{16}';
        WHEN 'base64Float' THEN pattern := '[A-Za-z0-9+/]{11}=';
        WHEN 'URI' THEN pattern := '[^ \t\r\n<>"]+';
        ELSE RETURN NULL;
    END CASE;
    RETURN jsonb_build_object('family', CASE data_type WHEN 'time' THEN 'time' WHEN 'datetime' THEN 'datetime' ELSE 'other' END,
                              'schema', jsonb_build_object('type', 'string', 'pattern', '^(?:' || pattern || ')$'));
END $$;
COMMENT ON FUNCTION epro_etl.odm_type(text) IS
    'What an ODM DataType (ODM 1.3.2, section 2.14) becomes: a JSON Schema, and the family that says how its values compare; NULL: unknown';

CREATE FUNCTION epro_etl.odm_comparison(item text, family text, comparator text, literals text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sign constant text := CASE comparator WHEN 'LT' THEN '<' WHEN 'LE' THEN '<=' WHEN 'GT' THEN '>' WHEN 'GE' THEN '>='
                                          WHEN 'EQ' THEN '=' WHEN 'NE' THEN '<>' WHEN 'IN' THEN 'IN' WHEN 'NOTIN' THEN 'NOT IN' END;
    ordered constant boolean := comparator IN ('LT', 'LE', 'GT', 'GE');
    left_side text := item;
    guard text;
    list text;
    one text;
    quoted text;
BEGIN
    IF sign IS NULL OR cardinality(literals) = 0 OR (cardinality(literals) > 1 AND comparator NOT IN ('IN', 'NOTIN')) THEN
        RETURN NULL;
    END IF;
    FOREACH one IN ARRAY literals LOOP
        one := CASE WHEN family IN ('text', 'other') THEN one ELSE btrim(one) END;
        quoted := NULL;
        CASE family
            WHEN 'integer', 'number' THEN
                IF one ~ '^[+-]?[0-9]{1,250}(\.[0-9]{1,250})?([eE][+-]?[0-9]{1,3})?$' THEN quoted := '(' || one || ')'; END IF;
            WHEN 'boolean' THEN
                quoted := CASE WHEN one IN ('true', '1') THEN 'true' WHEN one IN ('false', '0') THEN 'false' END;
                IF ordered THEN quoted := NULL; END IF;
            WHEN 'date' THEN
                IF one ~ (epro_etl.odm_type('partialDate') -> 'schema' ->> 'pattern') AND length(one) = 10 AND one >= '0001' THEN
                    quoted := 'DATE ' || quote_literal(one);
                END IF;
            WHEN 'time', 'datetime' THEN
                -- which of two is the earlier can be said of two without an offset, down to the microsecond
                guard := CASE family WHEN 'time' THEN '^' ELSE '^[0-9]{4}-[0-9]{2}-[0-9]{2}T' END || '[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$';
                IF one ~ (epro_etl.odm_type(family) -> 'schema' ->> 'pattern') AND one ~ guard AND (family = 'time' OR one >= '0001') THEN
                    quoted := CASE family WHEN 'time' THEN 'TIME ' ELSE 'TIMESTAMP ' END || quote_literal(one);
                    left_side := item || CASE family WHEN 'time' THEN '::time' ELSE '::timestamp' END;
                END IF;
            WHEN 'text' THEN
                quoted := quote_literal(one);
                IF ordered THEN left_side := item || ' COLLATE "C"'; END IF;
            ELSE
                IF NOT ordered THEN quoted := quote_literal(one); END IF;
        END CASE;
        IF quoted IS NULL THEN
            RETURN NULL;
        END IF;
        list := concat_ws(', ', list, quoted);
    END LOOP;
    list := left_side || ' ' || sign || ' ' || CASE WHEN sign LIKE '%IN' THEN '(' || list || ')' ELSE list END;
    RETURN CASE WHEN guard IS NULL THEN list
                ELSE 'CASE WHEN ' || item || ' ~ ' || quote_literal(guard) || ' AND ' || item || ' >= ' || CASE family WHEN 'time' THEN '''''' ELSE '''0001''' END
                     || ' THEN ' || list || ' END' END;
END $$;
COMMENT ON FUNCTION epro_etl.odm_comparison(text, text, text, text[]) IS
    'A comparison of a RangeCheck or XPath predicate as an SQL expression over an item; NULL: it cannot be said for values of that family';

CREATE FUNCTION epro_etl.odm_xpath(expression text, at_group boolean, here text, places jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts text[] := regexp_match(expression, $r$^\s*((?:\.\./)+)((?:\w+:)?ItemGroupData\s*\[\s*@ItemGroupOID\s*=\s*(?:'([^']*)'|"([^"]*)")\s*\]\s*/\s*)?$r$
        || $r$(?:\w+:)?ItemData\s*\[\s*@ItemOID\s*=\s*(?:'([^']*)'|"([^"]*)")\s*\]((?:\s*\[\s*@Value\s*(?:=|!=|<=|>=|<|>)\s*(?:'[^']*'|"[^"]*"|-?[0-9]+(?:\.[0-9]+)?)\s*\])*)\s*$r$ || '$');
    up integer := length(parts[1]) / 3 + at_group::integer;   -- from an ItemData: 1 is its group, 2 the form
    in_group text := coalesce(parts[3], parts[4]);
    item text := coalesce(parts[5], parts[6]);
    place jsonb;
    term text[];
    sql text;
    one text;
BEGIN
    IF parts IS NULL THEN
        RETURN jsonb_build_object('why', CASE WHEN expression ~ 'FormData\s*\[|StudyEventData\s*\[' THEN 'it is about another form or visit'
            ELSE 'of XPath, only ../ItemData[@ItemOID=''...''][@Value=''...''] and ItemGroupData[...]/ItemData[...] are read' END);
    END IF;
    IF up <> (CASE WHEN parts[2] IS NULL THEN 1 ELSE 2 END) THEN
        RETURN jsonb_build_object('why', 'its path leads nowhere from here');
    END IF;
    in_group := coalesce(in_group, here);
    place := places -> (in_group || E'\x01' || item);
    IF place IS NULL THEN
        RETURN jsonb_build_object('why', format('it asks for item %s of group %s, which this form does not have', item, in_group));
    END IF;
    FOR term IN SELECT regexp_matches(parts[7], $r$\[\s*@Value\s*(=|!=|<=|>=|<|>)\s*(?:'([^']*)'|"([^"]*)"|(-?[0-9]+(?:\.[0-9]+)?))\s*\]$r$, 'g') LOOP
        -- to XPath, an order is one of numbers
        one := CASE WHEN term[1] NOT IN ('=', '!=') AND (place ->> 'family') NOT IN ('integer', 'number') THEN NULL
                    ELSE epro_etl.odm_comparison(place ->> 'ref', place ->> 'family', CASE term[1] WHEN '=' THEN 'EQ' WHEN '!=' THEN 'NE' WHEN '<' THEN 'LT'
                             WHEN '<=' THEN 'LE' WHEN '>' THEN 'GT' ELSE 'GE' END, ARRAY[coalesce(term[2], term[3], term[4])]) END;
        IF one IS NULL THEN
            RETURN jsonb_build_object('why', format('it compares item %s with what is no value of its DataType', item));
        END IF;
        sql := concat_ws(' AND ', sql, one);
    END LOOP;
    -- no such node is no match: XPath knows no unknown
    RETURN jsonb_build_object('sql', coalesce('coalesce(' || sql || ', false)', (place ->> 'ref') || ' IS NOT NULL'));
END $$;
COMMENT ON FUNCTION epro_etl.odm_xpath(text, boolean, text, jsonb) IS
    'A path over ItemData as it is usual in ODM conditions, as an SQL expression: {"sql": ...}, or {"why": ...} when it is none of those that are read; places: {ref, family} by group, U+0001 and item';

CREATE FUNCTION epro_etl.odm_translate(odm jsonb, form_oid text) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    form jsonb;
    refs jsonb;             -- a place of an item in the form each: group, item, and what ItemGroupRef, ItemRef and ItemDef say
    -- by group, item and between them a character that XML does not have; without an item: of the group
    places jsonb := '{}';   -- {ref, family, name}, or {wrong}
    conditions jsonb := '{}';  -- {sql, probe}, or {why}; and oid, said
    top jsonb := '{}';      -- properties
    required jsonb := '[]';
    groups jsonb := '{}';   -- properties of the groups whose items stand in an object
    checks jsonb := '[]';
    report jsonb := '[]';
    schema jsonb;
    place jsonb;
    condition jsonb;
    present jsonb;          -- of places, those that did become items
    aliases jsonb;
    r record;
    c record;
    key text;
    name text;
    expression text;
    applies text;
    unit text;
    units text[];
    others text;
    codes jsonb;
    wrong text;
    limits jsonb;
    hard boolean;
    probe boolean;
BEGIN
    SELECT f.value INTO form FROM jsonb_array_elements(odm -> 'forms') f WHERE f.value ->> 'oid' = form_oid;
    SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY t.group_at, t.item_at), '[]') INTO refs FROM (
        SELECT g."group", g.mandatory AS group_mandatory, g.exception AS group_exception, d.oid IS NOT NULL AS group_known, d.repeating,
               i.item, i.mandatory, i.exception, i.method, t.name, t.type, t.length, t.digits, t.codelist, t.oid IS NOT NULL AS known,
               concat_ws(' | ', nullif(t.question, ''), nullif(t.said, '')) AS said,
               row_number() OVER (ORDER BY g.place, g.n) AS group_at,
               row_number() OVER (ORDER BY g.place, g.n, i.place, i.n) AS item_at,
               min(g."group") OVER (PARTITION BY i.item) <> max(g."group") OVER (PARTITION BY i.item) AS nested,
               row_number() OVER (PARTITION BY g."group", i.item ORDER BY g.n, i.n) AS again
        FROM jsonb_to_recordset(odm -> 'group_refs') AS g (n integer, form text, "group" text, mandatory text, place numeric, exception text)
        LEFT JOIN jsonb_to_recordset(odm -> 'groups') AS d (oid text, name text, repeating text) ON d.oid = g."group"
        LEFT JOIN jsonb_to_recordset(odm -> 'item_refs') AS i (n integer, "group" text, item text, mandatory text, place numeric, exception text, method text)
            ON i."group" = g."group"
        LEFT JOIN jsonb_to_recordset(odm -> 'items') AS t (oid text, name text, type text, length text, digits text, codelist text, question text, said text)
            ON t.oid = i.item
        WHERE g.form = form_oid) t;

    -- a study has many forms: below, look only through what is about this one
    SELECT odm || jsonb_object_agg(l.list, (
            SELECT coalesce(jsonb_agg(e.value ORDER BY e.n), '[]') FROM jsonb_array_elements(odm -> l.list) WITH ORDINALITY AS e (value, n)
            WHERE e.value ->> l.key = ANY (l.oids) OR (l.list = 'expressions' AND e.value ->> 'kind' <> 'RangeCheck'))) INTO odm
        FROM (SELECT array_agg(DISTINCT x.value ->> 'item') AS items, array_agg(DISTINCT x.value ->> 'codelist') AS codelists FROM jsonb_array_elements(refs) x) o,
             LATERAL (VALUES ('item_units', 'item', o.items), ('ranges', 'item', o.items), ('range_values', 'item', o.items), ('expressions', 'item', o.items),
                             ('codes', 'codelist', o.codelists)) AS l (list, key, oids);

    -- what cannot become an item, and where the others stand
    FOR r IN SELECT * FROM jsonb_to_recordset(refs) AS x ("group" text, item text, type text, group_known boolean, known boolean, nested boolean, again integer) LOOP
        key := r."group" || E'\x01' || r.item;
        name := CASE WHEN r.nested THEN r."group" || '.' ELSE '' END || r.item;
        wrong := CASE WHEN r.item IS NULL OR r.again > 1 THEN NULL
                      WHEN NOT r.known THEN 'there is no ItemDef of that OID'
                      WHEN epro_etl.odm_type(r.type) IS NULL THEN format('unknown DataType "%s"', r.type)
                      WHEN octet_length(r.item) > 58 OR (r.nested AND octet_length(r."group") > 63) THEN 'its OID is too long for a name in SQL' END;
        IF r.item IS NULL OR r.again > 1 THEN
            CONTINUE;
        END IF;
        IF wrong IS NOT NULL THEN
            places := places || jsonb_build_object(key, jsonb_build_object('wrong', wrong));
            CONTINUE;
        END IF;
        places := places || jsonb_build_object(key, (epro_etl.odm_type(r.type) - 'schema') || jsonb_build_object('name', name,
            'ref', CASE WHEN r.nested THEN quote_ident(r."group") || '.' ELSE '' END || quote_ident(r.item)));
    END LOOP;
    -- one that is not there is none to a condition, too
    SELECT coalesce(jsonb_object_agg(p.key, p.value) FILTER (WHERE p.value ? 'ref'), '{}') INTO present FROM jsonb_each(places) p;

    -- conditions under which a group or an item is not collected
    FOR r IN SELECT DISTINCT x."group" || E'\x01' AS key, x."group", x.group_exception AS oid, true AS at_group
             FROM jsonb_to_recordset(refs) AS x ("group" text, group_exception text) WHERE x.group_exception IS NOT NULL
             UNION ALL
             SELECT DISTINCT x."group" || E'\x01' || x.item, x."group", x.exception, false
             FROM jsonb_to_recordset(refs) AS x ("group" text, item text, exception text) WHERE x.exception IS NOT NULL LOOP
        condition := jsonb_build_object('why', CASE WHEN EXISTS (SELECT FROM jsonb_array_elements(odm -> 'rules') d
            WHERE d.value ->> 'oid' = r.oid AND d.value ->> 'kind' = 'ConditionDef')
            THEN 'it has no FormalExpression in a context that is known here (SQL, PostgreSQL, epro_etl, XPath)'
            ELSE 'there is no ConditionDef of that OID' END);
        FOR c IN SELECT lower(e.context) AS context, e.expression
                 FROM jsonb_to_recordset(odm -> 'expressions') AS e (n integer, kind text, oid text, context text, expression text)
                 WHERE e.kind = 'ConditionDef' AND e.oid = r.oid AND lower(e.context) IN ('sql', 'postgresql', 'epro_etl', 'xpath')
                 ORDER BY lower(e.context) = 'xpath', e.n LIMIT 1 LOOP
            condition := CASE c.context WHEN 'xpath' THEN epro_etl.odm_xpath(c.expression, r.at_group, r."group", present)
                                        ELSE jsonb_build_object('sql', '(' || c.expression || E'\n)', 'probe', true) END;
        END LOOP;
        conditions := conditions || jsonb_build_object(r.key, condition || jsonb_build_object('oid', r.oid,
            'said', (SELECT nullif(d.value ->> 'said', '') FROM jsonb_array_elements(odm -> 'rules') d WHERE d.value ->> 'oid' = r.oid LIMIT 1)));
    END LOOP;

    report := report || jsonb_build_object('construct', 'FormDef', 'oid', form_oid, 'status', 'imported', 'detail', 'form "' || (form ->> 'name') || '"');
    IF form ->> 'repeating' = 'Yes' THEN
        report := report || jsonb_build_object('construct', 'FormDef/@Repeating', 'oid', form_oid, 'status', 'not imported',
            'detail', 'each occurrence is a response of its own; how many there are is not judged');
    END IF;

    FOR r IN SELECT *, row_number() OVER (PARTITION BY x."group" ORDER BY x.item_at) = 1 AS first_of_group
             FROM jsonb_to_recordset(refs) AS x ("group" text, group_mandatory text, group_exception text, group_known boolean, repeating text, item text,
                mandatory text, exception text, method text, name text, type text, length text, digits text, codelist text, known boolean, said text,
                item_at integer, nested boolean, again integer)
             ORDER BY x.item_at LOOP
        IF r.first_of_group THEN
            -- the others of a group: a group that is not mandatory is there when one of them is
            report := report || jsonb_build_object('construct', 'ItemGroupDef', 'oid', r."group",
                'status', CASE WHEN r.group_known THEN 'imported' ELSE 'not imported' END,
                'detail', CASE WHEN NOT r.group_known THEN 'there is no ItemGroupDef of that OID'
                               WHEN r.group_mandatory = 'Yes' THEN 'mandatory' ELSE 'its mandatory items are when one of its items is answered' END);
            IF r.repeating = 'Yes' THEN
                report := report || jsonb_build_object('construct', 'ItemGroupDef/@Repeating', 'oid', r."group", 'status', 'not imported',
                    'detail', 'each occurrence is a response of its own; how many there are is not judged');
            END IF;
            condition := conditions -> (r."group" || E'\x01');
            IF condition IS NOT NULL THEN
                SELECT string_agg((p.value ->> 'ref') || ' IS NULL', ' AND ' ORDER BY p.key) INTO expression
                    FROM jsonb_each(present) p WHERE left(p.key, length(r."group") + 1) = r."group" || E'\x01';
                name := 'group ' || r."group" || ' CollectionExceptionCondition';
                IF condition ? 'sql' AND expression IS NOT NULL THEN
                    checks := checks || jsonb_build_object('name', name, 'expression', expression, 'condition', condition ->> 'sql', 'severity', 'error',
                        'message', concat_ws(': ', 'group ' || r."group" || ' must not be answered', condition ->> 'said'),
                        'probe', condition ? 'probe', 'row', jsonb_array_length(report));
                END IF;
                report := report || jsonb_build_object('construct', 'ConditionDef', 'oid', condition ->> 'oid',
                    'status', CASE WHEN condition ? 'sql' THEN 'imported' ELSE 'not imported' END,
                    'detail', 'of ItemGroupRef ' || r."group" || ': ' || coalesce(condition ->> 'why', 'edit check "' || name || '"'));
            END IF;
        END IF;
        IF r.item IS NULL THEN
            CONTINUE;
        END IF;
        IF r.again > 1 THEN
            report := report || jsonb_build_object('construct', 'ItemRef', 'oid', r.item, 'status', 'not imported',
                'detail', 'the form has it in group ' || r."group" || ' already');
            CONTINUE;
        END IF;
        place := places -> (r."group" || E'\x01' || r.item);
        IF place ? 'wrong' THEN
            report := report || jsonb_build_object('construct', 'ItemDef', 'oid', r.item, 'status', 'not imported', 'detail', place ->> 'wrong');
            CONTINUE;
        END IF;

        schema := (epro_etl.odm_type(r.type) -> 'schema') || jsonb_strip_nulls(jsonb_build_object('title', r.name,
            'description', nullif(r.said, ''), '$comment', 'ItemDef ' || r.item));
        report := report || jsonb_build_object('construct', 'ItemDef', 'oid', r.item, 'status', 'imported',
            'detail', format('item "%s", %s', place ->> 'name', r.type));
        limits := '{}';

        IF r.codelist IS NOT NULL THEN
            SELECT jsonb_agg(CASE WHEN place ->> 'family' IN ('integer', 'number') THEN CASE WHEN btrim(e.value) ~ '^-?(0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?$'
                                       THEN to_jsonb(btrim(e.value)::numeric) END
                                  WHEN place ->> 'family' = 'boolean' THEN CASE WHEN e.value IN ('true', '1') THEN 'true'::jsonb WHEN e.value IN ('false', '0') THEN 'false' END
                                  ELSE to_jsonb(e.value) END ORDER BY e.n) INTO codes
                FROM jsonb_to_recordset(odm -> 'codes') AS e (n integer, codelist text, value text) WHERE e.codelist = r.codelist;
            SELECT CASE WHEN l.oid IS NULL THEN 'there is no CodeList of that OID'
                        WHEN l.external > 0 THEN 'it is an ExternalCodeList, whose codes are not in the document: its values are not judged'
                        WHEN codes IS NULL THEN 'it has no items'
                        WHEN codes @> 'null' THEN format('it has codes that are no values of DataType %s', r.type) END INTO wrong
                FROM (SELECT) one LEFT JOIN jsonb_to_recordset(odm -> 'codelists') AS l (oid text, external integer) ON l.oid = r.codelist;
            IF wrong IS NULL THEN
                schema := schema || jsonb_build_object('enum', codes, 'description', (
                    SELECT concat_ws(' | ', schema ->> 'description', string_agg(e.value || ' = ' || e.meaning, ', ' ORDER BY e.n) FILTER (WHERE e.meaning <> ''))
                    FROM jsonb_to_recordset(odm -> 'codes') AS e (n integer, codelist text, value text, meaning text) WHERE e.codelist = r.codelist));
            END IF;
            report := report || jsonb_build_object('construct', 'CodeList', 'oid', r.codelist, 'status', CASE WHEN wrong IS NULL THEN 'imported' ELSE 'not imported' END,
                'detail', format('of ItemDef %s: ', r.item) || coalesce(wrong, format('enum of %s values', jsonb_array_length(codes))));
        END IF;

        -- Length and SignificantDigits: what a system must be able to hold (ODM 1.3.2, ItemDef)
        IF r.length IS NOT NULL THEN
            wrong := NULL;
            IF schema ? 'enum' THEN
                NULL;   -- a code list that is longer than the Length is right all the same
            ELSIF r.length !~ '^[0-9]{1,9}$' THEN
                wrong := 'it is no number';
            ELSIF place ->> 'family' = 'text' THEN
                schema := schema || jsonb_build_object('maxLength', r.length::integer);
            ELSIF place ->> 'family' = 'integer' THEN
                IF r.length::integer > 100 THEN wrong := 'it is beyond 100 digits';
                ELSE limits := jsonb_build_object('minimum', trim_scale(1 - 10::numeric ^ r.length::integer),
                                                  'maximum', trim_scale(10::numeric ^ r.length::integer - 1)); END IF;
            ELSIF r.type IN ('float', 'decimal') AND coalesce(r.digits, '0') ~ '^[0-9]{1,3}$' AND r.length::integer <= 100
                  AND r.length::integer >= coalesce(r.digits, '0')::integer THEN
                limits := jsonb_build_object('exclusiveMinimum', trim_scale(-(10::numeric ^ (r.length::integer - coalesce(r.digits, '0')::integer))),
                                             'exclusiveMaximum', trim_scale(10::numeric ^ (r.length::integer - coalesce(r.digits, '0')::integer)));
            ELSE
                wrong := CASE WHEN r.type IN ('float', 'decimal') THEN 'it does not fit the SignificantDigits' ELSE format('ODM gives it no meaning for DataType %s', r.type) END;
            END IF;
            report := report || jsonb_build_object('construct', 'ItemDef/@Length', 'oid', r.item, 'status', CASE WHEN wrong IS NULL THEN 'imported' ELSE 'not imported' END,
                'detail', coalesce(wrong, CASE WHEN schema ? 'enum' THEN 'by its CodeList' END, CASE place ->> 'family' WHEN 'text' THEN 'maxLength ' || r.length WHEN 'integer' THEN 'minimum and maximum'
                                                ELSE 'exclusiveMinimum and exclusiveMaximum' END));
        END IF;
        IF r.digits IS NOT NULL THEN
            wrong := CASE WHEN r.digits !~ '^[0-9]{1,3}$' OR place ->> 'family' <> 'number' THEN 'ODM gives it no meaning here' END;
            name := (place ->> 'name') || ' SignificantDigits';
            IF wrong IS NULL THEN
                checks := checks || jsonb_build_object('name', name, 'severity', 'warning', 'row', jsonb_array_length(report),
                    'expression', format('%1$s = round(%1$s, %2$s)', place ->> 'ref', r.digits), 'condition', (place ->> 'ref') || ' IS NOT NULL',
                    'message', format('%s has more than %s digits behind the decimal point', place ->> 'name', r.digits));
            END IF;
            report := report || jsonb_build_object('construct', 'ItemDef/@SignificantDigits', 'oid', r.item,
                'status', CASE WHEN wrong IS NULL THEN 'imported' ELSE 'not imported' END, 'detail', coalesce(wrong, 'edit check "' || name || '", a warning'));
        END IF;

        -- when an item is not collected: its group's condition, or its own
        SELECT string_agg(k.value ->> 'sql', ' OR '), coalesce(bool_or(k.value ? 'probe'), false) INTO applies, probe
            FROM jsonb_each(conditions) k WHERE k.key IN (r."group" || E'\x01', r."group" || E'\x01' || r.item) AND k.value ? 'sql';
        condition := conditions -> (r."group" || E'\x01' || r.item);
        IF condition IS NOT NULL THEN
            name := (place ->> 'name') || ' CollectionExceptionCondition';
            IF condition ? 'sql' THEN
                checks := checks || jsonb_build_object('name', name, 'expression', (place ->> 'ref') || ' IS NULL', 'condition', condition ->> 'sql', 'severity', 'error',
                    'message', concat_ws(': ', (place ->> 'name') || ' must not be answered', condition ->> 'said'), 'probe', condition ? 'probe',
                    'row', jsonb_array_length(report));
            END IF;
            report := report || jsonb_build_object('construct', 'ConditionDef', 'oid', condition ->> 'oid', 'status', CASE WHEN condition ? 'sql' THEN 'imported' ELSE 'not imported' END,
                'detail', 'of ItemRef ' || r.item || ': ' || coalesce(condition ->> 'why', 'edit check "' || name || '"'));
        END IF;

        IF r.mandatory = 'Yes' THEN
            SELECT string_agg((p.value ->> 'ref') || ' IS NOT NULL', ' OR ' ORDER BY p.key) INTO others
                FROM jsonb_each(present) p WHERE left(p.key, length(r."group") + 1) = r."group" || E'\x01' AND p.key <> r."group" || E'\x01' || r.item;
            wrong := CASE WHEN EXISTS (SELECT FROM jsonb_each(conditions) k WHERE k.key IN (r."group" || E'\x01', r."group" || E'\x01' || r.item) AND NOT k.value ? 'sql')
                          THEN 'whether it is to be collected depends on a ConditionDef that was not imported' END;
            name := (place ->> 'name') || ' Mandatory';
            IF wrong IS NOT NULL THEN
                NULL;
            ELSIF r.group_mandatory = 'Yes' AND applies IS NULL AND NOT r.nested THEN
                required := required || to_jsonb(r.item);
                name := NULL;
            ELSIF r.group_mandatory IS DISTINCT FROM 'Yes' AND others IS NULL THEN
                name := NULL;
            ELSE
                checks := checks || jsonb_build_object('name', name, 'expression', (place ->> 'ref') || ' IS NOT NULL', 'severity', 'error',
                    'condition', nullif(concat_ws(' AND ', CASE WHEN r.group_mandatory IS DISTINCT FROM 'Yes' THEN '(' || others || ')' END, 'NOT (' || applies || ')'), ''),
                    'message', (place ->> 'name') || ' must be answered', 'probe', probe, 'row', jsonb_array_length(report));
            END IF;
            report := report || jsonb_build_object('construct', 'ItemRef/@Mandatory', 'oid', r.item, 'status', CASE WHEN wrong IS NULL THEN 'imported' ELSE 'not imported' END,
                'detail', CASE WHEN wrong IS NOT NULL THEN wrong WHEN name IS NOT NULL THEN 'edit check "' || name || '"'
                               WHEN r.group_mandatory = 'Yes' THEN 'required' ELSE 'nothing to require: its group is there only when it is' END);
        END IF;

        -- units: those of the item, and those that its range checks are about
        SELECT array_agg(u.unit ORDER BY u.n) INTO units FROM (
            SELECT x.unit, min(x.n) AS n FROM (
                SELECT m.unit, m.n FROM jsonb_to_recordset(odm -> 'item_units') AS m (n integer, item text, unit text) WHERE m.item = r.item
                UNION ALL
                SELECT m.unit, 1000000 + m.n FROM jsonb_to_recordset(odm -> 'ranges') AS m (n integer, item text, unit text) WHERE m.item = r.item AND m.unit IS NOT NULL) x
            GROUP BY x.unit) u;
        unit := NULL;
        IF units IS NOT NULL THEN
            -- the unit of an answer that states none: the item's only one, or the only one of its checks
            SELECT CASE WHEN count(*) = 1 THEN min(m.unit) WHEN count(*) = 0 AND cardinality(units) = 1 THEN units[1] END INTO unit
                FROM jsonb_to_recordset(odm -> 'item_units') AS m (item text, unit text) WHERE m.item = r.item;
            name := r.item || '_unit';
            WHILE EXISTS (SELECT FROM jsonb_array_elements(refs) x WHERE lower(x.value ->> 'item') = lower(name)) LOOP
                name := name || '_';
            END LOOP;
            -- what a unit may be called: its OID, and its name and symbols unless another one of the item has them
            SELECT jsonb_object_agg(a.unit, a.aliases) INTO aliases FROM (
                SELECT n.unit, jsonb_agg(n.alias ORDER BY n.rank, n.alias) AS aliases FROM (
                    SELECT y.unit, y.alias, min(y.rank) AS rank, count(*) OVER (PARTITION BY y.alias) AS shared FROM (
                        SELECT u AS unit, u AS alias, 0 AS rank FROM unnest(units) u
                        UNION ALL SELECT d.oid, d.name, 1 FROM jsonb_to_recordset(odm -> 'units') AS d (oid text, name text) WHERE d.oid = ANY (units) AND d.name <> ''
                        UNION ALL SELECT s.unit, s.symbol, 2 FROM jsonb_to_recordset(odm -> 'symbols') AS s (unit text, symbol text) WHERE s.unit = ANY (units)) y
                    GROUP BY y.unit, y.alias) n
                WHERE n.shared = 1 OR n.rank = 0 GROUP BY n.unit) a;
            place := place || jsonb_build_object('aliases', aliases, 'unit_ref', CASE WHEN r.nested THEN quote_ident(r."group") || '.' ELSE '' END || quote_ident(name));
            codes := jsonb_strip_nulls(jsonb_build_object('type', 'string', 'title', 'unit of ' || r.item, 'default', unit,
                'enum', (SELECT jsonb_agg(DISTINCT x.value) FROM jsonb_each(aliases) t, jsonb_array_elements(t.value) x)));
            IF r.nested THEN
                groups := jsonb_set(groups, ARRAY[r."group"], coalesce(groups -> r."group", '{}') || jsonb_build_object(name, codes));
            ELSE
                top := top || jsonb_build_object(name, codes);
            END IF;
            FOR c IN SELECT u FROM unnest(units) u LOOP
                report := report || jsonb_build_object('construct', 'MeasurementUnit', 'oid', c.u, 'status', 'imported',
                    'detail', format('of ItemDef %s: item "%s" takes %s%s', r.item, name, (SELECT string_agg(to_json(x)::text, ', ') FROM jsonb_array_elements_text(aliases -> c.u) x),
                                     CASE c.u WHEN unit THEN '; meant when it is not answered' ELSE '' END));
            END LOOP;
        END IF;

        FOR c IN SELECT x.at, x.comparator, x.softhard, x.unit, nullif(x.message, '') AS message,
                        array(SELECT v.value FROM jsonb_to_recordset(odm -> 'range_values') AS v (n integer, item text, at integer, value text)
                              WHERE v.item = r.item AND v.at = x.at ORDER BY v.n) AS literals,
                        (SELECT e.expression FROM jsonb_to_recordset(odm -> 'expressions') AS e (n integer, kind text, item text, at integer, context text, expression text)
                         WHERE e.kind = 'RangeCheck' AND e.item = r.item AND e.at = x.at AND lower(e.context) IN ('sql', 'postgresql', 'epro_etl')
                         ORDER BY e.n LIMIT 1) AS sql
                 FROM jsonb_to_recordset(odm -> 'ranges') AS x (n integer, item text, at integer, comparator text, softhard text, unit text, message text)
                 WHERE x.item = r.item ORDER BY x.n LOOP
            hard := c.softhard IS DISTINCT FROM 'Soft';
            expression := coalesce(CASE WHEN cardinality(c.literals) = 0 THEN '(' || c.sql || E'\n)' END,
                                   epro_etl.odm_comparison(place ->> 'ref', place ->> 'family', c.comparator, c.literals));
            wrong := CASE WHEN expression IS NOT NULL THEN NULL
                          WHEN cardinality(c.literals) = 0 THEN 'it has no CheckValue, and no FormalExpression in SQL'
                          WHEN cardinality(c.literals) > 1 AND c.comparator NOT IN ('IN', 'NOTIN') THEN 'it has more than one CheckValue'
                          ELSE format('values of DataType %s are not compared by %s with that CheckValue', r.type, c.comparator) END;
            IF wrong IS NOT NULL THEN
                report := report || jsonb_build_object('construct', 'RangeCheck', 'oid', r.item, 'status', 'not imported',
                    'detail', concat_ws(' ', coalesce(c.comparator, 'RangeCheck'), CASE WHEN cardinality(c.literals) = 1 THEN c.literals[1] END) || ': ' || wrong);
                CONTINUE;
            END IF;
            -- a hard limit that says nothing of its own is a keyword: that is faster
            IF hard AND c.message IS NULL AND c.unit IS NULL AND applies IS NULL AND cardinality(c.literals) = 1
               AND place ->> 'family' IN ('integer', 'number') AND c.comparator IN ('LE', 'GE', 'LT', 'GT') THEN
                name := CASE c.comparator WHEN 'LE' THEN 'maximum' WHEN 'GE' THEN 'minimum' WHEN 'LT' THEN 'exclusiveMaximum' ELSE 'exclusiveMinimum' END;
                limits := limits || jsonb_build_object(name, CASE WHEN c.comparator IN ('LE', 'LT') THEN least((limits ->> name)::numeric, c.literals[1]::numeric)
                                                                  ELSE greatest((limits ->> name)::numeric, c.literals[1]::numeric) END);
                report := report || jsonb_build_object('construct', 'RangeCheck', 'oid', r.item, 'status', 'imported', 'detail', name || ' ' || c.literals[1]);
                CONTINUE;
            END IF;
            name := concat_ws(' ', place ->> 'name', coalesce(c.comparator, 'RangeCheck'), CASE WHEN cardinality(c.literals) = 1 THEN left(c.literals[1], 40) END, c.unit);
            WHILE EXISTS (SELECT FROM jsonb_array_elements(checks) k WHERE k.value ->> 'name' = name) LOOP
                name := name || ' again';
            END LOOP;
            others := concat_ws(' AND ', (place ->> 'ref') || ' IS NOT NULL',
                    CASE WHEN c.unit IS NOT NULL THEN format('%s IN (%s)', coalesce('coalesce(' || (place ->> 'unit_ref') || ', ' || quote_literal(unit) || ')', place ->> 'unit_ref'),
                        (SELECT string_agg(quote_literal(x), ', ') FROM jsonb_array_elements_text(place -> 'aliases' -> c.unit) x)) END);
            checks := checks || jsonb_build_object('name', name, 'expression', expression, 'severity', CASE WHEN hard THEN 'error' ELSE 'warning' END,
                'condition', concat_ws(' AND ', others, 'NOT (' || applies || ')'), 'otherwise', CASE WHEN cardinality(c.literals) > 0 THEN others END,
                'message', coalesce(c.message, concat_ws(' ', place ->> 'name', 'must be', c.comparator, array_to_string(c.literals, ', '), c.unit)),
                'probe', probe OR cardinality(c.literals) = 0, 'row', jsonb_array_length(report));
            report := report || jsonb_build_object('construct', 'RangeCheck', 'oid', r.item, 'status', 'imported',
                'detail', format('edit check "%s"%s', name, CASE WHEN hard THEN '' ELSE ', a warning' END));
        END LOOP;

        IF r.method IS NOT NULL THEN
            SELECT e.expression INTO expression FROM jsonb_to_recordset(odm -> 'expressions') AS e (n integer, kind text, oid text, context text, expression text)
                WHERE e.kind = 'MethodDef' AND e.oid = r.method AND lower(e.context) IN ('sql', 'postgresql', 'epro_etl') ORDER BY e.n LIMIT 1;
            SELECT CASE WHEN count(*) = 0 THEN 'there is no MethodDef of that OID'
                        WHEN bool_or(d.value ->> 'type' = 'Imputation') THEN 'what is imputed is not compared with what was answered'
                        WHEN expression IS NULL THEN 'it has no FormalExpression in a context that is known here (SQL, PostgreSQL, epro_etl)' END INTO wrong
                FROM jsonb_array_elements(odm -> 'rules') d WHERE d.value ->> 'oid' = r.method AND d.value ->> 'kind' = 'MethodDef';
            name := (place ->> 'name') || ' ' || r.method;
            IF wrong IS NULL THEN
                checks := checks || jsonb_build_object('name', name, 'severity', 'error', 'condition', (place ->> 'ref') || ' IS NOT NULL', 'probe', true,
                    'expression', CASE WHEN place ->> 'family' = 'number' AND r.digits ~ '^[0-9]{1,3}$'
                                       THEN format(E'%s = round((%s\n)::numeric, %s)', place ->> 'ref', expression, r.digits)
                                       ELSE format(E'%s = (%s\n)', place ->> 'ref', expression) END,
                    'message', format('%s is not what method %s computes', place ->> 'name', r.method), 'row', jsonb_array_length(report));
            END IF;
            report := report || jsonb_build_object('construct', 'MethodDef', 'oid', r.method, 'status', CASE WHEN wrong IS NULL THEN 'imported' ELSE 'not imported' END,
                'detail', 'of ItemRef ' || r.item || ': ' || coalesce(wrong, 'edit check "' || name || '"'));
        END IF;

        schema := schema || limits;
        IF r.nested THEN
            groups := jsonb_set(groups, ARRAY[r."group"], coalesce(groups -> r."group", '{}') || jsonb_build_object(r.item, schema));
        ELSE
            top := top || jsonb_build_object(r.item, schema);
        END IF;
    END LOOP;

    SELECT top || coalesce(jsonb_object_agg(g.key, jsonb_build_object('type', 'object', '$comment', 'ItemGroupDef ' || g.key, 'properties', g.value)), '{}')
        INTO top FROM jsonb_each(groups) g;
    RETURN jsonb_build_object('checks', checks, 'report', report, 'definition', jsonb_strip_nulls(jsonb_build_object(
        'title', form ->> 'name', 'description', nullif(form ->> 'said', ''), '$comment', 'FormDef ' || form_oid || ' of ODM',
        'type', 'object', 'x-normalise', '["coerce"]'::jsonb, 'properties', top, 'required', CASE WHEN required <> '[]' THEN required END)));
END $$;
COMMENT ON FUNCTION epro_etl.odm_translate(jsonb, text) IS
    'What a FormDef of odm_read() becomes: {"definition": JSON Schema, "checks": edit checks, "report": a row a construct}; writes nothing';

CREATE FUNCTION epro_etl.odm_store(name text, translated jsonb, version text) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    previous epro_etl.form_import;
    same boolean;
    given text := odm_store.version;
    report jsonb := translated -> 'report';
    ids bigint[] := '{}';
    id bigint;
    c record;
BEGIN
    SELECT k.name AS check_name INTO c FROM jsonb_to_recordset(translated -> 'checks') AS k (name text) GROUP BY k.name HAVING count(*) > 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'two edit checks of form "%" would be called "%"', odm_store.name, c.check_name USING ERRCODE = 'duplicate_object',
            HINT = 'Give one of the items, groups or methods another OID.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('epro_etl.form ' || odm_store.name, 0));
    SELECT * INTO previous FROM epro_etl.form_import i WHERE i.form = odm_store.name ORDER BY i.import_id DESC LIMIT 1;
    SELECT f.definition = translated -> 'definition' INTO same FROM epro_etl.form f WHERE f.name = odm_store.name ORDER BY f.form_id DESC LIMIT 1;

    -- checks of an earlier import go before the form that they are written for; those that stay as they are, stay
    UPDATE epro_etl.edit_check e SET removed_at = now(), removed_by = session_user
        WHERE e.check_id = ANY (previous.checks) AND e.removed_at IS NULL AND NOT (coalesce(same, false) AND EXISTS (
            SELECT FROM jsonb_to_recordset(translated -> 'checks') AS k (name text, expression text, condition text, severity text, message text)
            WHERE k.name = e.check_name AND k.expression = e.expression AND k.severity = e.severity
              AND k.condition IS NOT DISTINCT FROM e.condition AND k.message IS NOT DISTINCT FROM e.message));
    given := epro_etl.register_form(odm_store.name, translated -> 'definition', given);

    FOR c IN SELECT k.*, e.check_id FROM jsonb_to_recordset(translated -> 'checks')
                 AS k (name text, expression text, condition text, severity text, message text, probe boolean, otherwise text, "row" integer)
             LEFT JOIN epro_etl.edit_check e ON e.check_id = ANY (previous.checks) AND e.removed_at IS NULL AND e.check_name = k.name LOOP
        id := c.check_id;
        IF id IS NULL THEN
            BEGIN
                PERFORM epro_etl.retire_check(odm_store.name, c.name);
                INSERT INTO epro_etl.edit_check (form, check_name, expression, severity, condition, message)
                    VALUES (odm_store.name, c.name, c.expression, c.severity, c.condition, c.message) RETURNING check_id INTO id;
                -- what was written in SQL may be no rule here: then it alone is not imported
                IF c.probe THEN
                    PERFORM epro_etl.compile_form(odm_store.name);
                END IF;
            EXCEPTION WHEN syntax_error_or_access_rule_violation OR data_exception OR feature_not_supported OR SQLSTATE 'EP004' THEN
                -- a limit holds whatever becomes of the condition
                IF c.otherwise IS NULL THEN
                    report := jsonb_set(report, ARRAY[c."row"::text], (report -> c."row") || jsonb_build_object('status', 'not imported', 'detail', SQLERRM));
                    CONTINUE;
                END IF;
                PERFORM epro_etl.retire_check(odm_store.name, c.name);
                INSERT INTO epro_etl.edit_check (form, check_name, expression, severity, condition, message)
                    VALUES (odm_store.name, c.name, c.expression, c.severity, c.otherwise, c.message) RETURNING check_id INTO id;
                report := jsonb_set(report, ARRAY[c."row"::text, 'detail'], to_jsonb((report -> c."row" ->> 'detail') || ', whatever the condition'));
            END;
        END IF;
        ids := ids || id;
    END LOOP;
    PERFORM epro_etl.compile_form(odm_store.name);
    PERFORM epro_etl.thresholds_fit(odm_store.name);

    IF (previous.version, previous.checks, previous.report) IS DISTINCT FROM (given, ids, report) THEN
        INSERT INTO epro_etl.form_import (form, version, checks, report) VALUES (odm_store.name, given, ids, report);
    END IF;
    RETURN given;
END $$;
COMMENT ON FUNCTION epro_etl.odm_store(text, jsonb, text) IS
    'Registers what odm_translate() made under a name, in place of what an earlier import made, and returns the version';

CREATE FUNCTION epro_etl.register_form(name text, definition xml, version text DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    odm jsonb := epro_etl.odm_read(definition);
    forms text[];
    given text;
    lost bigint;
BEGIN
    IF register_form.name IS NULL OR odm IS NULL THEN
        RAISE EXCEPTION 'name and definition must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    -- the one of that OID, else those of that name, else the only one
    SELECT array_agg(f.value ->> 'oid') INTO forms FROM jsonb_array_elements(odm -> 'forms') f
        WHERE f.value ->> 'oid' = register_form.name OR (f.value ->> 'name' = register_form.name AND NOT EXISTS (
            SELECT FROM jsonb_array_elements(odm -> 'forms') o WHERE o.value ->> 'oid' = register_form.name));
    IF forms IS NULL THEN
        SELECT array_agg(f.value ->> 'oid') INTO forms FROM jsonb_array_elements(odm -> 'forms') f;
    END IF;
    IF coalesce(cardinality(forms), 0) <> 1 THEN
        RAISE EXCEPTION 'no FormDef of the ODM document is meant by "%"', register_form.name USING ERRCODE = 'undefined_object',
            HINT = coalesce('Name one by its OID: ' || array_to_string(forms, ', ') || '; or register all with epro_etl.register_odm().', 'It has no FormDef.');
    END IF;
    given := epro_etl.odm_store(register_form.name, epro_etl.odm_translate(odm, forms[1]), register_form.version);
    SELECT count(*) INTO lost FROM epro_etl.import_report r WHERE r.form = register_form.name AND r.status = 'not imported';
    IF lost > 0 THEN
        RAISE NOTICE 'constructs of form "%" that were not imported: %', register_form.name, lost USING HINT = 'See epro_etl.import_report.';
    END IF;
    RETURN given;
END $$;
COMMENT ON FUNCTION epro_etl.register_form(text, xml, text) IS
    'Registers a FormDef of a CDISC ODM 1.3 document, chosen by name (its OID, or Name), with its edit checks, and returns the version; import_report says what became of each construct';

-- A literal without a type would fit jsonb and xml alike; text is what the
-- server takes for it.
CREATE FUNCTION epro_etl.register_form(name text, definition text, version text DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- before the parser sees it: see odm_read()
    IF definition ~ '^[\s\uFEFF]*<' AND definition ~ '<!(DOCTYPE|ENTITY)' THEN
        RAISE EXCEPTION 'the ODM document has a DOCTYPE or an entity declaration' USING ERRCODE = 'invalid_xml_document',
            HINT = 'Remove it, also from comments: ODM needs none, and entities can read files or fill the memory.';
    END IF;
    RETURN CASE WHEN definition ~ '^[\s\uFEFF]*<' THEN epro_etl.register_form(name, ltrim(definition, E'\uFEFF \t\r\n')::xml, version)
                ELSE epro_etl.register_form(name, definition::jsonb, version) END;
END $$;
COMMENT ON FUNCTION epro_etl.register_form(text, text, text) IS
    'Registers a form from a text: an ODM document if it begins with "<", else JSON';

CREATE FUNCTION epro_etl.register_odm(definition xml, version text DEFAULT NULL, OUT form text, OUT construct text, OUT oid text, OUT status text, OUT detail text)
    RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    odm jsonb := epro_etl.odm_read(definition);
    f record;
    translated jsonb;
BEGIN
    IF odm IS NULL THEN
        RAISE EXCEPTION 'definition must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF jsonb_array_length(odm -> 'forms') = 0 THEN
        RAISE EXCEPTION 'the MetaDataVersion has no FormDef' USING ERRCODE = 'undefined_object';
    END IF;
    FOR f IN SELECT x.value ->> 'oid' AS oid FROM jsonb_array_elements(odm -> 'forms') x LOOP
        translated := epro_etl.odm_translate(odm, f.oid);
        IF translated -> 'definition' -> 'properties' = '{}' THEN
            RETURN QUERY SELECT f.oid, r.construct, r.oid, 'not imported', CASE r.construct WHEN 'FormDef' THEN 'it has no item that could be' ELSE r.detail END
                FROM jsonb_to_recordset(translated -> 'report') AS r (construct text, oid text, detail text);
            CONTINUE;
        END IF;
        PERFORM epro_etl.odm_store(f.oid, translated, register_odm.version);
        RETURN QUERY SELECT r.form, r.construct, r.oid, r.status, r.detail FROM epro_etl.import_report r WHERE r.form = f.oid;
    END LOOP;

    -- what no form refers to
    RETURN QUERY SELECT NULL, d.construct, d.oid, 'not imported', CASE WHEN odm -> 'form_conditions' ? d.oid THEN 'of a FormRef: which form is expected at which visit is not judged'
                                                                      ELSE 'no form of the document refers to it' END FROM (
        SELECT 'ItemGroupDef', x ->> 'oid', 1 FROM jsonb_array_elements(odm -> 'groups') x WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements(odm -> 'group_refs') g WHERE g ->> 'group' = x ->> 'oid')
        UNION ALL SELECT 'ItemDef', x ->> 'oid', 2 FROM jsonb_array_elements(odm -> 'items') x WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements(odm -> 'group_refs') g JOIN jsonb_array_elements(odm -> 'item_refs') i ON i ->> 'group' = g ->> 'group'
            WHERE i ->> 'item' = x ->> 'oid')
        UNION ALL SELECT 'CodeList', x ->> 'oid', 3 FROM jsonb_array_elements(odm -> 'codelists') x WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements(odm -> 'group_refs') g JOIN jsonb_array_elements(odm -> 'item_refs') i ON i ->> 'group' = g ->> 'group'
            JOIN jsonb_array_elements(odm -> 'items') t ON t ->> 'oid' = i ->> 'item' WHERE t ->> 'codelist' = x ->> 'oid')
        UNION ALL SELECT 'MeasurementUnit', x ->> 'oid', 4 FROM jsonb_array_elements(odm -> 'units') x WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements(odm -> 'group_refs') g JOIN jsonb_array_elements(odm -> 'item_refs') i ON i ->> 'group' = g ->> 'group'
            JOIN jsonb_array_elements((odm -> 'item_units') || (odm -> 'ranges')) u ON u ->> 'item' = i ->> 'item' WHERE u ->> 'unit' = x ->> 'oid')
        UNION ALL SELECT x ->> 'kind', x ->> 'oid', 5 FROM jsonb_array_elements(odm -> 'rules') x WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements(odm -> 'group_refs') g WHERE g ->> 'exception' = x ->> 'oid') AND NOT EXISTS (
            SELECT FROM jsonb_array_elements(odm -> 'group_refs') g JOIN jsonb_array_elements(odm -> 'item_refs') i ON i ->> 'group' = g ->> 'group'
            WHERE x ->> 'oid' IN (i ->> 'exception', i ->> 'method'))) AS d (construct, oid, rank)
        ORDER BY d.rank, d.oid COLLATE "C";
    -- and what is read by nothing here
    RETURN QUERY SELECT NULL, d.name, NULL, 'not imported', d.n || ' of them: ' || d.why FROM (
        SELECT e.name, e.n, CASE WHEN e.ns <> odm ->> 'namespace' THEN 'of namespace "' || e.ns || '", not of ODM'
                   WHEN e.name IN ('Protocol', 'StudyEventRef', 'StudyEventDef', 'FormRef') THEN 'which form is expected at which visit is not judged'
                   WHEN e.name IN ('AdminData', 'ReferenceData', 'ClinicalData') THEN 'data, not metadata'
                   WHEN e.name = 'Include' THEN 'what it includes is not in the document'
                   WHEN e.name IN ('GlobalVariables', 'StudyName', 'StudyDescription', 'ProtocolName') THEN 'about the study, not about a response'
                   ELSE 'says nothing about a response that is judged here' END AS why
        FROM jsonb_to_recordset(odm -> 'elements') AS e (name text, ns text, n bigint)
        WHERE e.ns <> odm ->> 'namespace' OR e.name <> ALL ('{ODM,Study,BasicDefinitions,MetaDataVersion,FormDef,ItemGroupRef,ItemGroupDef,ItemRef,ItemDef,CodeListRef,
            CodeList,CodeListItem,EnumeratedItem,ExternalCodeList,RangeCheck,CheckValue,ErrorMessage,MeasurementUnit,MeasurementUnitRef,ConditionDef,MethodDef,FormalExpression,
            Symbol,Question,Description,Decode,TranslatedText}'::text[])
        UNION ALL
        SELECT a.name, a.n, CASE WHEN a.name LIKE '%/@CollectionExceptionConditionOID' THEN 'which form is expected at which visit is not judged'
                                 WHEN a.name LIKE '%:%' THEN 'not of ODM' ELSE 'says nothing about a response that is judged here' END
        FROM jsonb_to_recordset(odm -> 'attributes') AS a (name text, n bigint)
        WHERE a.name ~ '^(FormDef|ItemGroupRef|ItemGroupDef|ItemRef|ItemDef|CodeListRef|CodeList|CodeListItem|EnumeratedItem|RangeCheck|MeasurementUnit|MeasurementUnitRef'
                       '|ConditionDef|MethodDef|FormalExpression|FormRef)/'
          AND a.name !~ '/@(OID|Name|.*OID|Mandatory|OrderNumber|Repeating|DataType|Length|SignificantDigits|CodedValue|Comparator|SoftHard|Context|Type)$'
           OR a.name = 'FormRef/@CollectionExceptionConditionOID') d
        ORDER BY d.name COLLATE "C";
END $$;
COMMENT ON FUNCTION epro_etl.register_odm(xml, text) IS
    'Registers every FormDef of a CDISC ODM 1.3 document under its OID, with its edit checks, in place of those of an earlier import; returns a row a construct: imported, or not imported and why';

--
-- Privileges: nothing for PUBLIC; see "Roles" in README.md for what to grant
--
REVOKE ALL ON ALL TABLES IN SCHEMA epro_etl FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA epro_etl FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA epro_etl FROM PUBLIC;

--
-- pg_dump keeps configuration, ledger, findings and quarantine; not which streams
-- are up: a copy of a database must not begin to write into its sinks by itself
--
SELECT pg_catalog.pg_extension_config_dump('epro_etl.form', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.edit_check', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.deid_rule', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.deid_profile', 'WHERE NOT shipped');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.pseudonym', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.severity_overlay', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.batch_threshold', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.pipeline', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.sink', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.context_server', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = settings)');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.key_version', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.run_ledger', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.run_worker', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.finding', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.quarantine', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.requeued', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.superseded', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.outbox', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.study', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.participant', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.site_access', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.hop', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.form_import', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.form_import_import_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.form_form_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.edit_check_check_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.deid_rule_rule_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.severity_overlay_overlay_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.batch_threshold_threshold_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.pipeline_pipeline_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.sink_sink_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.run_ledger_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.quarantine_quarantine_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.outbox_outbox_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.superseded_superseded_id_seq', '');
