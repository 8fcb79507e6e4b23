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
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user,
    removed_at      timestamptz,
    removed_by      text,
    CHECK ((timeout IS NULL) = (on_timeout IS NULL))
);
CREATE UNIQUE INDEX edit_check_current ON epro_etl.edit_check (form, check_name) WHERE removed_at IS NULL;
COMMENT ON TABLE epro_etl.edit_check IS 'Edit checks of forms; those with removed_at are kept for the ledger and not evaluated';
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
    on_duplicate    text NOT NULL CHECK (on_duplicate IN ('reject', 'ignore')),
    required        boolean NOT NULL,
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user,
    UNIQUE (pipeline_id, form, target)
);
COMMENT ON COLUMN epro_etl.sink.matched IS 'Columns that took something when the sink was added: a run refuses a sink that has lost one';
COMMENT ON COLUMN epro_etl.sink.shape IS 'wide: a row a response, a column an item; long: a row an item that is answered';
COMMENT ON COLUMN epro_etl.sink.on_duplicate IS 'reject: a response of which the sink holds a row already goes to quarantine; ignore: the row that is there stays, and the response counts as loaded';
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
COMMENT ON TABLE epro_etl.stream IS 'Streams that are to be up; written by start_stream() and stop_stream() alone, since it says as whom a stream acts';

CREATE TABLE epro_etl.context_server (
    server          text PRIMARY KEY,
    settings        regclass NOT NULL,
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user
);
COMMENT ON COLUMN epro_etl.context_server.settings IS 'Foreign table over pg_settings of that server; when it is dropped, or another, the server is not told any more';
COMMENT ON TABLE epro_etl.context_server IS 'Servers of postgres_fdw that are told the remaining time and the request_id of what they are asked';

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
    context         jsonb
);
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
    chunks          bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, worker)
) WITH (fillfactor = 50);
COMMENT ON TABLE epro_etl.run_worker IS 'Counts of each worker of each run, written in the transaction of each chunk; worker 0 is the calling session';

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
       w.claimed, w.loaded, w.warned, w.rejected, w.duplicate, w.deferred, w.skipped,
       l.remaining, w.workers, w.chunks, l.dry_run, l.reason, l.batch_size,
       l.session_user_name, l.current_user_name, l.started_at, l.finished_at,
       l.finished_at - l.started_at AS elapsed,
       l.sqlstate, l.message, l.failed_worker, l.failed_chunk, l.versions, l.stream, l.context
FROM epro_etl.run_ledger l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(w.claimed), 0)::bigint AS claimed, coalesce(sum(w.loaded), 0)::bigint AS loaded,
           coalesce(sum(w.warned), 0)::bigint AS warned, coalesce(sum(w.rejected), 0)::bigint AS rejected,
           coalesce(sum(w.duplicate), 0)::bigint AS duplicate, coalesce(sum(w.deferred), 0)::bigint AS deferred,
           coalesce(sum(w.skipped), 0)::bigint AS skipped, coalesce(sum(w.chunks), 0)::bigint AS chunks,
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
    'Registers a JSON Schema (2020-12) as a form''s new current version and returns the version; an unsupported keyword is refused with its JSON Pointer';

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
    UPDATE epro_etl.edit_check c SET removed_at = now(), removed_by = session_user
        WHERE c.form = add_edit_check.form AND c.check_name = add_edit_check.check_name AND c.removed_at IS NULL;
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
    UPDATE epro_etl.edit_check c SET removed_at = now(), removed_by = session_user
        WHERE c.form = add_lookup.form AND c.check_name = add_lookup.check_name AND c.removed_at IS NULL;
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
    UPDATE epro_etl.edit_check c SET removed_at = now(), removed_by = session_user
        WHERE c.form = remove_edit_check.form AND c.check_name = remove_edit_check.check_name AND c.removed_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'form "%" has no edit check "%"', form, check_name
            USING ERRCODE = 'undefined_object', HINT = 'See epro_etl.edit_check.';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.remove_edit_check(text, text) IS 'Retires an edit check; runs of the past keep naming it';

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
    UPDATE epro_etl.deid_rule d SET removed_at = now(), removed_by = session_user
        WHERE d.form = set_deid.form AND d.path = set_deid.path AND d.removed_at IS NULL;
    INSERT INTO epro_etl.deid_rule (form, path, method, params)
        VALUES (set_deid.form, set_deid.path, set_deid.method, set_deid.params);
    PERFORM epro_etl.compile_form(set_deid.form);

    -- what is taken out cannot be judged: say which keywords that silences
    IF set_deid.method <> 'keep' THEN
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
    'Sets the de-identification method of an item (by JSON Pointer): keep, remove, redact, or generalize with {"to": "age"}';

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
    IF coalesce(add_sink.on_duplicate, '') NOT IN ('reject', 'ignore') THEN
        RAISE EXCEPTION 'unknown on_duplicate "%"', add_sink.on_duplicate USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is reject: a response whose key the sink holds goes to quarantine, or ignore: the row that is there stays, and the response counts as loaded.';
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
          AND (t.takes IN ('study', 'subject_key', 'form', 'form_version', 'visit', 'authored', 'source_id', 'run_id', 'loaded_at')
               OR CASE WHEN add_sink.shape = 'long' THEN t.takes IN ('item', 'item_no', 'location', 'value', 'value_number')
                  ELSE EXISTS (SELECT FROM epro_etl.form_items(add_sink.form) i WHERE lower(i.name) = lower(t.takes)) END);
    PERFORM epro_etl.compile_pipeline(pipeline);
    PERFORM epro_etl.tell_unstored(pipeline, add_sink.form);
END $$;
COMMENT ON FUNCTION epro_etl.add_sink(text, text, regclass, text, jsonb, text, text, boolean) IS
    'Adds your own relation as a sink of a form; columns are matched by name, or mapped with {"column": "item"}; in a long sink, with {"column": "value"} and the like; on_duplicate => ''ignore'' is for sinks that may be given a row twice, above all foreign tables';

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
    own constant text[] := '{study,subject_key,form,form_version,visit,authored,source_id,run_id,loaded_at,
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
            ' run_id bigint NOT NULL, loaded_at timestamptz NOT NULL, PRIMARY KEY (source_id, item))', quoted, id_type);
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
        ' run_id bigint NOT NULL, loaded_at timestamptz NOT NULL)', quoted, id_type, list);
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
    heard boolean;
BEGIN
    IF make_context_server.server IS NULL THEN
        RAISE EXCEPTION 'server must not be null' USING ERRCODE = 'null_value_not_allowed';
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
    SELECT string_agg(quote_ident(p), '.' ORDER BY n) INTO quoted FROM unnest(parts) WITH ORDINALITY AS u (p, n);
    made := to_regclass(quoted);
    IF made IS NULL THEN
        EXECUTE format('CREATE FOREIGN TABLE %s (name text, setting text, reset_val text) SERVER %I'
                       ' OPTIONS (schema_name ''pg_catalog'', table_name ''pg_settings'')', quoted, make_context_server.server);
        EXECUTE format('COMMENT ON FOREIGN TABLE %s IS %L', quoted, 'Settings of the other server; epro_etl tells it deadlines through this table');
        EXECUTE format('GRANT SELECT, UPDATE (setting) ON %s TO PUBLIC', quoted);
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
    -- other forms that are counted elsewhere.
    FOR s IN WITH sinks AS (
                 SELECT k.sink_id, k.form, k.target, k.shape, k.condition, k.on_duplicate,
                        bool_or(k.shape = 'wide') OVER (PARTITION BY k.form) AS has_wide,
                        (SELECT jsonb_object_agg(coalesce(k.columns ->> a.attname::text, a.attname), a.attname)
                           FROM pg_attribute a WHERE a.attrelid = k.target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS held_by
                 FROM epro_etl.sink k JOIN epro_etl.pipeline p USING (pipeline_id)
                 WHERE p.name = r.pipeline),
             chosen AS (
                 SELECT DISTINCT ON (form) *, condition IS NULL AND on_duplicate = 'reject' AND (shape = 'wide' OR NOT has_wide) AS complete
                 FROM sinks ORDER BY form, condition IS NOT NULL, on_duplicate = 'ignore', shape = 'long', sink_id)
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
        total := total + rows;
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

-- unlike a CHECK of the table, a domain does not quote what it refuses
CREATE DOMAIN epro_etl.pseudonym AS text COLLATE "C" CHECK (VALUE ~ '^[0-9a-f]{64}$');
COMMENT ON DOMAIN epro_etl.pseudonym IS 'A subject_key: 64 hexadecimal digits in lower case, as runs make them';
REVOKE ALL ON TYPE epro_etl.pseudonym FROM PUBLIC;

CREATE TABLE epro_etl.study (
    study           text PRIMARY KEY CHECK (study <> ''),
    title           text,
    added_at        timestamptz NOT NULL DEFAULT now(),
    added_by        text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE epro_etl.study IS 'Studies; a role sees those of which a site is open to it';

CREATE TABLE epro_etl.participant (
    study           text NOT NULL,
    subject_key     epro_etl.pseudonym NOT NULL,
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
SELECT pg_catalog.pg_extension_config_dump('epro_etl.pipeline', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.sink', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.context_server', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.run_ledger', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.run_worker', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.finding', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.quarantine', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.requeued', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.outbox', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.study', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.participant', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.site_access', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.hop', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.form_form_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.edit_check_check_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.deid_rule_rule_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.pipeline_pipeline_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.sink_sink_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.run_ledger_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.quarantine_quarantine_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.outbox_outbox_id_seq', '');
