/* epro_etl 0.1.0 to 0.2.0.  Run by ALTER EXTENSION epro_etl UPDATE. */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION epro_etl UPDATE" to load this file. \quit

--
-- What this adds is in the script of 0.2.0 word for word: a catalogue that was
-- updated is the one that is made new.  No row that is there is changed but for
-- the new count, and nothing that was granted to others.
--

-- A run that goes on would be counted half by the old library, and is refused before anything is locked, so that it is not
-- kept waiting, and again behind the locks.  Who has yet to begin waits for these; so does this for runs in somebody's transaction.
DO $$
DECLARE
    alive text;
BEGIN
    IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'epro_etl cannot be updated in a transaction of isolation level %', pg_catalog.current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction', HINT = 'Its snapshot could lack what runs have written since; update in one of read committed.';
    END IF;
    FOR pass IN 1 .. 2 LOOP
        SELECT string_agg(h.run_id::text, ', ' ORDER BY h.run_id) INTO alive FROM epro_etl.run_history h WHERE h.status = 'running';
        IF alive IS NOT NULL THEN
            RAISE EXCEPTION 'epro_etl cannot be updated while runs go on: %', alive
                USING ERRCODE = 'object_in_use', HINT = 'Stop streams with epro_etl.stop_stream(), and wait for runs or cancel them with epro_etl.cancel_run().';
        END IF;
        EXIT WHEN pass = 2;
        LOCK TABLE epro_etl.form, epro_etl.edit_check, epro_etl.deid_rule, epro_etl.deid_profile, epro_etl.severity_overlay, epro_etl.batch_threshold, epro_etl.pipeline,
            epro_etl.sink, epro_etl.stream, epro_etl.context_server, epro_etl.key_version, epro_etl.study, epro_etl.participant, epro_etl.site_access, epro_etl.hop,
            epro_etl.form_import, epro_etl.run_ledger, epro_etl.pseudonym, epro_etl.requeued, epro_etl.quarantine, epro_etl.finding, epro_etl.superseded, epro_etl.outbox
            IN SHARE ROW EXCLUSIVE MODE;
        LOCK TABLE epro_etl.run_worker IN ACCESS EXCLUSIVE MODE;
    END LOOP;
END $$;

--
-- Findings are counted.  Whose they were is not known: the first worker has all.
--

ALTER TABLE epro_etl.run_worker ADD COLUMN findings bigint NOT NULL DEFAULT 0;
UPDATE epro_etl.run_worker w SET findings = f.n
    FROM (SELECT g.run_id, count(*) AS n FROM epro_etl.finding g GROUP BY g.run_id) f
    WHERE w.run_id = f.run_id AND w.worker = (SELECT o.worker FROM epro_etl.run_worker o WHERE o.run_id = w.run_id ORDER BY o.chunks = 0, o.worker LIMIT 1);

--
-- ODM documents are looked at before they are parsed
--

CREATE FUNCTION epro_etl.odm_text(definition text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- entities, external or ten levels deep, need a DOCTYPE
    IF definition LIKE '%<!DOCTYPE%' OR definition LIKE '%<!ENTITY%' THEN
        RAISE EXCEPTION 'the ODM document has a DOCTYPE or an entity declaration' USING ERRCODE = 'invalid_xml_document',
            HINT = 'Remove it, also from comments: ODM needs none, and entities can read files or fill the memory.';
    END IF;
    IF octet_length(definition) > 16777216 THEN
        RAISE EXCEPTION 'the ODM document is larger than 16 MB' USING ERRCODE = 'program_limit_exceeded',
            HINT = 'Pass the MetaDataVersion without clinical data.';
    END IF;
    -- the parser holds each attribute against all before it, and nothing interrupts it
    IF EXISTS (SELECT FROM string_to_table(definition, '<') AS t (tag) WHERE length(tag) > 10000 AND length(tag) - length(replace(tag, '=', '')) > 5000) THEN
        RAISE EXCEPTION 'the ODM document has an element with more than 5000 attributes' USING ERRCODE = 'program_limit_exceeded';
    END IF;
END $$;
COMMENT ON FUNCTION epro_etl.odm_text(text) IS 'Refuses, before anything is parsed, an ODM document that could read files, or fill memory and time';

CREATE OR REPLACE FUNCTION epro_etl.odm_read(definition xml) RETURNS jsonb
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
    PERFORM epro_etl.odm_text(source);
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

CREATE OR REPLACE FUNCTION epro_etl.register_form(name text, definition text, version text DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF definition ~ '^[\s\uFEFF]*<' THEN
        PERFORM epro_etl.odm_text(definition);
    END IF;
    RETURN CASE WHEN definition ~ '^[\s\uFEFF]*<' THEN epro_etl.register_form(name, ltrim(definition, E'\uFEFF \t\r\n')::xml, version)
                ELSE epro_etl.register_form(name, definition::jsonb, version) END;
END $$;

--
-- The audit trail.  Records in chains: each has the hash of the one before it.
-- They are written by the extension's own code alone, in the transaction of what
-- they record; to all others these tables can only be read.
--

-- the order of these columns, and the table's access method, are known to audit.c
CREATE TABLE epro_etl.audit_trail (
    writer          uuid NOT NULL,
    seq             bigint NOT NULL,
    at              timestamptz NOT NULL,
    session_user_name text NOT NULL,
    current_user_name text NOT NULL,
    actor           text,
    action          text NOT NULL,
    object          text NOT NULL,
    old_value       jsonb,
    new_value       jsonb,
    reason          text,
    context         jsonb,
    witness         bytea,
    previous        bytea,
    hash            bytea NOT NULL,
    PRIMARY KEY (writer, seq)
) USING heap;
COMMENT ON TABLE epro_etl.audit_trail IS 'Who did what, when and why: configuration, runs, corrections, requeues, overwrites; append-only, in chains of hashes that verify_audit() checks';
COMMENT ON COLUMN epro_etl.audit_trail.writer IS 'The chain; there are as many as transactions ever recorded something at once';
COMMENT ON COLUMN epro_etl.audit_trail.seq IS 'The record''s number in its chain, from 1, without gaps';
COMMENT ON COLUMN epro_etl.audit_trail.at IS 'The server''s clock when it was recorded, not when the transaction began';
COMMENT ON COLUMN epro_etl.audit_trail.current_user_name IS 'The role that the session had become; of a run, the one that it acts as';
COMMENT ON COLUMN epro_etl.audit_trail.actor IS 'Whom the session says to act for: the request value "actor" of context_set()';
COMMENT ON COLUMN epro_etl.audit_trail.action IS 'add, change, remove, retire, switch off, switch on, truncate; begin, end, overwrite: of a run; correct, requeue, discard: of quarantine; update: of the extension';
COMMENT ON COLUMN epro_etl.audit_trail.object IS 'The table of the extension in which it was done; extension: the extension itself';
COMMENT ON COLUMN epro_etl.audit_trail.old_value IS 'As it was: a row of configuration; of data keys and counts, never an answer or an identifier';
COMMENT ON COLUMN epro_etl.audit_trail.new_value IS 'As it is, likewise; of data also a digest';
COMMENT ON COLUMN epro_etl.audit_trail.reason IS 'Of the run; else the request value "reason" of context_set(), or the one that the row itself has';
COMMENT ON COLUMN epro_etl.audit_trail.witness IS 'Hash of the newest record of the next chain, so that no chain can go unseen';
COMMENT ON COLUMN epro_etl.audit_trail.previous IS 'Hash of the record before it; NULL: it is the first';
COMMENT ON COLUMN epro_etl.audit_trail.hash IS 'SHA-256 of audit_bytes() of all other columns, in their order';

CREATE TABLE epro_etl.audit_writer (
    writer          uuid PRIMARY KEY,
    slot            integer UNIQUE,
    seq             bigint NOT NULL,
    hash            bytea NOT NULL
) USING heap WITH (fillfactor = 50);
COMMENT ON TABLE epro_etl.audit_writer IS 'Heads of the chains of the audit trail: how far each one goes';
COMMENT ON COLUMN epro_etl.audit_writer.slot IS 'By which a writer finds a chain to go on with; NULL: it came with a dump, and is over';

-- the order of these columns is known to audit_functions.c
CREATE TABLE epro_etl.correction (
    correction_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    quarantine_id   bigint NOT NULL,
    run_id          bigint NOT NULL,
    source_id       text,
    original        jsonb NOT NULL,
    corrected_at    timestamptz NOT NULL,
    corrected_by    text NOT NULL,
    salt            uuid NOT NULL
);
COMMENT ON TABLE epro_etl.correction IS 'Rows of quarantine as they were before they were corrected there, whole and identified; grant with care';
COMMENT ON COLUMN epro_etl.correction.salt IS 'Without it, the digest in the audit trail would let its readers try out what the original was';

CREATE FUNCTION epro_etl.audit_change() RETURNS trigger
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_audit_change';
COMMENT ON FUNCTION epro_etl.audit_change() IS 'Records a row of configuration as it was and as it is';

CREATE FUNCTION epro_etl.audit_count() RETURNS trigger
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_audit_count';
COMMENT ON FUNCTION epro_etl.audit_count() IS 'Records how many rows of data a statement has added, changed or removed by hand';

CREATE FUNCTION epro_etl.audit_correction() RETURNS trigger
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_audit_correction';
COMMENT ON FUNCTION epro_etl.audit_correction() IS 'Records the correction of a quarantined response, and keeps the earlier original';

CREATE FUNCTION epro_etl.audit_requeue() RETURNS trigger
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_audit_requeue';
COMMENT ON FUNCTION epro_etl.audit_requeue() IS 'Records which responses have left quarantine: requeued, or discarded';

CREATE FUNCTION epro_etl.audit_refuse() RETURNS trigger
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'epro_etl_audit_refuse';
COMMENT ON FUNCTION epro_etl.audit_refuse() IS 'Refuses to have the audit trail changed, and to have it added to but by a restore';

CREATE FUNCTION epro_etl.audit_run(run_id bigint, at_end boolean) RETURNS jsonb
    LANGUAGE c STABLE STRICT
    AS 'MODULE_PATHNAME', 'epro_etl_audit_run';
COMMENT ON FUNCTION epro_etl.audit_run(bigint, boolean) IS
    'What the audit trail has to say of a run, by the ledger as it is now; at its end with a digest of the run''s row and its workers''. NULL: no such run';

CREATE FUNCTION epro_etl.audit_bytes(parts text[]) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT coalesce(string_agg(CASE WHEN p IS NULL THEN '\xffffffff'::bytea ELSE int4send(octet_length(p)) || convert_to(p, 'UTF8') END, ''::bytea ORDER BY n), '')
            FROM unnest($1) WITH ORDINALITY AS u (p, n));
COMMENT ON FUNCTION epro_etl.audit_bytes(text[]) IS
    'Texts behind each other, each with its length in bytes before it (four bytes, high ones first; -1 for NULL): of which digests of the audit trail are made';

CREATE FUNCTION epro_etl.audit_instant(at timestamptz) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN (extract(epoch FROM $1) * 1000000)::bigint::text;
COMMENT ON FUNCTION epro_etl.audit_instant(timestamptz) IS 'Microseconds since 1970, UTC, as text: how an instant goes into a digest of the audit trail';

CREATE FUNCTION epro_etl.audit_triggers(OUT relation text, OUT name text, OUT fires text) RETURNS SETOF record
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT t, n, f FROM unnest('{form,edit_check,deid_rule,deid_profile,severity_overlay,batch_threshold,pipeline,sink,stream,context_server,key_version,study,site_access,hop,form_import}'::text[]) t,
            (VALUES ('audit_change', 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION epro_etl.audit_change()'),
                    ('audit_truncate', 'AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION epro_etl.audit_count()')) AS v (n, f)
        UNION ALL
        -- what runs write here fires nothing, or is an INSERT or an UPDATE of the ledger, whose digest is recorded
        SELECT t, 'audit_' || lower(n), format('AFTER %s ON %%s %sFOR EACH STATEMENT EXECUTE FUNCTION epro_etl.audit_count()', n, f)
            FROM unnest('{run_ledger,run_worker,finding,superseded,correction,participant,pseudonym,quarantine,requeued,outbox}'::text[]) t,
            (VALUES ('INSERT', 'REFERENCING NEW TABLE AS come '), ('UPDATE', 'REFERENCING OLD TABLE AS gone '), ('DELETE', 'REFERENCING OLD TABLE AS gone '), ('TRUNCATE', '')) AS v (n, f)
            WHERE n = 'TRUNCATE' OR t IN ('finding', 'participant', 'pseudonym') OR t IN ('run_ledger', 'run_worker', 'superseded', 'correction') AND n = 'DELETE' OR t = 'quarantine' AND n = 'INSERT'
        UNION ALL VALUES
            ('quarantine', 'audit_correction', 'AFTER UPDATE OF quarantine_id, run_id, pipeline, source_id, form, original ON %s FOR EACH ROW EXECUTE FUNCTION epro_etl.audit_correction()'),
            ('outbox', 'audit_delete', 'AFTER DELETE ON %s REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION epro_etl.audit_count(deliver)'),
            ('quarantine', 'audit_requeue', 'AFTER DELETE ON %s REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION epro_etl.audit_requeue()')
        UNION ALL
        SELECT t, n, format(f, '%s', e) FROM (VALUES ('audit_trail', ''), ('audit_writer', ''), ('correction', 'erase'), ('superseded', 'erase')) AS w (t, e),
            (VALUES ('audit_refuse', 'BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION epro_etl.audit_refuse(%s)'),
                    ('audit_refuse_truncate', 'BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION epro_etl.audit_refuse(%s)')) AS v (n, f);
    END;
COMMENT ON FUNCTION epro_etl.audit_triggers() IS 'The triggers of the audit trail: on which tables of the extension, and when; always enabled, also for a replica';

CREATE FUNCTION epro_etl.audit_heads() RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT coalesce(jsonb_object_agg(w.writer, jsonb_build_array(w.seq, encode(w.hash, 'hex')) ORDER BY w.writer), '{}') FROM epro_etl.audit_writer w;
    END;
COMMENT ON FUNCTION epro_etl.audit_heads() IS 'The heads of all chains, to be kept where this server''s superusers cannot write; verify_audit() takes them back';

CREATE FUNCTION epro_etl.verify_audit(heads jsonb DEFAULT NULL, OUT problem text, OUT writer uuid, OUT seq bigint, OUT object text, OUT detail text)
    RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- the chains
    RETURN QUERY
        SELECT v.problem, c.writer, c.seq, c.object, v.detail
        FROM (SELECT t.writer, t.seq, t.object, t.previous, lag(t.seq) OVER w AS seq_before, lag(t.hash) OVER w AS hash_before,
                     t.hash = sha256(epro_etl.audit_bytes(ARRAY[t.writer::text, t.seq::text, epro_etl.audit_instant(t.at), t.session_user_name, t.current_user_name, t.actor,
                         t.action, t.object, t.old_value::text, t.new_value::text, t.reason, t.context::text, encode(t.witness, 'hex'), encode(t.previous, 'hex')])) AS whole
              FROM epro_etl.audit_trail t WINDOW w AS (PARTITION BY t.writer ORDER BY t.seq)) c
        CROSS JOIN LATERAL (
            SELECT 'changed', 'the record is not the one that its hash was made of' WHERE NOT c.whole
            UNION ALL SELECT 'missing', format('%s records before it', c.seq - coalesce(c.seq_before, 0) - 1) WHERE c.seq <> coalesce(c.seq_before, 0) + 1
            UNION ALL SELECT 'unlinked', 'the record before it is not the one that it was put behind'
                WHERE c.seq = coalesce(c.seq_before, 0) + 1 AND c.previous IS DISTINCT FROM c.hash_before) AS v (problem, detail)
        ORDER BY c.writer, c.seq;
    RETURN QUERY
        SELECT v.problem, coalesce(w.writer, t.writer), coalesce(t.seq, 0), NULL::text, v.detail
        FROM epro_etl.audit_writer w
        FULL JOIN (SELECT DISTINCT ON (a.writer) a.writer, a.seq, a.hash FROM epro_etl.audit_trail a ORDER BY a.writer, a.seq DESC) t USING (writer)
        CROSS JOIN LATERAL (
            SELECT 'cut', format('the chain goes to %s', w.seq) WHERE w.seq > coalesce(t.seq, 0)
            UNION ALL SELECT 'beyond', format('the chain goes to %s', w.seq) WHERE w.seq < t.seq
            UNION ALL SELECT 'changed', 'the chain''s head has another hash' WHERE w.seq = t.seq AND w.hash <> t.hash
            UNION ALL SELECT 'beheaded', 'the chain has no head' WHERE w.writer IS NULL) AS v (problem, detail)
        ORDER BY 2;
    RETURN QUERY
        SELECT 'lost', t.writer, t.seq, NULL::text, 'the record of another chain that it was a witness of is in none'
        FROM epro_etl.audit_trail t WHERE t.witness IS NOT NULL AND NOT EXISTS (SELECT FROM epro_etl.audit_trail o WHERE o.hash = t.witness)
        ORDER BY t.writer, t.seq;
    RETURN QUERY
        SELECT 'kept', k.key::uuid, (k.value ->> 0)::bigint, NULL::text, 'the record that was its chain''s newest when the heads were kept is not there'
        FROM jsonb_each(verify_audit.heads) k
        WHERE NOT EXISTS (SELECT FROM epro_etl.audit_trail t WHERE t.writer = k.key::uuid AND t.seq = (k.value ->> 0)::bigint AND encode(t.hash, 'hex') = k.value ->> 1)
        ORDER BY k.key;

    -- what they are about
    RETURN QUERY
        SELECT 'ledger', r.writer, r.seq, format('run %s', r.run_id), CASE WHEN f.facts IS NULL THEN 'the run is not in the ledger' ELSE 'the ledger says otherwise' END
        FROM (SELECT DISTINCT ON (t.action, (t.new_value ->> 'run_id')::bigint) t.writer, t.seq, t.action, (t.new_value ->> 'run_id')::bigint AS run_id, t.new_value
              FROM epro_etl.audit_trail t WHERE t.object = 'run_ledger' AND t.action IN ('begin', 'end')
              ORDER BY t.action, (t.new_value ->> 'run_id')::bigint, t.at DESC) r
        CROSS JOIN LATERAL epro_etl.audit_run(r.run_id, r.action = 'end') AS f (facts)
        WHERE r.new_value IS DISTINCT FROM f.facts AND NOT (f.facts IS NULL AND r.action = 'end')
        ORDER BY r.run_id, r.action;
    RETURN QUERY
        SELECT 'ledger', NULL::uuid, NULL::bigint, format('run %s', l.run_id), 'the ledger has a run that is not in the audit trail'
        FROM epro_etl.run_ledger l
        WHERE NOT EXISTS (SELECT FROM epro_etl.audit_trail t WHERE t.object = 'run_ledger' AND t.action = 'begin' AND t.new_value ->> 'run_id' = l.run_id::text)
        ORDER BY l.run_id;
    RETURN QUERY
        SELECT 'findings', NULL::uuid, NULL::bigint, format('run %s', run_id), format('%s findings were made, and %s are there', coalesce(w.n, 0), coalesce(f.n, 0))
        FROM (SELECT w.run_id, sum(w.findings) AS n FROM epro_etl.run_worker w GROUP BY w.run_id) w
        FULL JOIN (SELECT g.run_id, count(*) AS n FROM epro_etl.finding g GROUP BY g.run_id) f USING (run_id)
        WHERE coalesce(w.n, 0) <> coalesce(f.n, 0) ORDER BY run_id;
    -- sums are of 64 bits, and run over
    RETURN QUERY
        WITH kept AS (
            SELECT s.run_id, s.sink_id, count(*) AS n, sum(p.a::numeric) AS a, sum(p.b::numeric) AS b, sum(p.c::numeric) AS c, sum(p.d::numeric) AS d
            FROM epro_etl.superseded s
            CROSS JOIN LATERAL (SELECT encode(sha256(epro_etl.audit_bytes(ARRAY[s.superseded_id::text, s.sink_id::text, s.target, s.run_id::text, s.source_id, s.earlier_run_id::text,
                                                                           s.earlier_source_id, s."row"::text, epro_etl.audit_instant(s.superseded_at)])), 'hex') AS h) x
            CROSS JOIN LATERAL (SELECT ('x' || substr(h, 1, 16))::bit(64)::bigint AS a, ('x' || substr(h, 17, 16))::bit(64)::bigint AS b,
                                       ('x' || substr(h, 33, 16))::bit(64)::bigint AS c, ('x' || substr(h, 49, 16))::bit(64)::bigint AS d) p
            GROUP BY s.run_id, s.sink_id),
        said AS (
            SELECT (t.new_value ->> 'run_id')::bigint AS run_id, (t.new_value ->> 'sink_id')::bigint AS sink_id, sum((t.new_value ->> 'rows')::bigint) AS n,
                   sum((t.new_value #>> '{sum,0}')::numeric) AS a, sum((t.new_value #>> '{sum,1}')::numeric) AS b,
                   sum((t.new_value #>> '{sum,2}')::numeric) AS c, sum((t.new_value #>> '{sum,3}')::numeric) AS d
            FROM epro_etl.audit_trail t WHERE t.object = 'superseded' AND t.action = 'overwrite' GROUP BY 1, 2)
        SELECT 'superseded', NULL::uuid, NULL::bigint, format('run %s, sink %s', run_id, sink_id),
               CASE WHEN coalesce(s.n, 0) <> coalesce(k.n, 0) THEN format('%s rows were superseded, and %s are there', coalesce(s.n, 0), coalesce(k.n, 0)) ELSE 'a row is another one' END
        FROM kept k FULL JOIN said s USING (run_id, sink_id)
        WHERE (k.n = s.n AND (k.a - s.a) % 18446744073709551616 = 0 AND (k.b - s.b) % 18446744073709551616 = 0
               AND (k.c - s.c) % 18446744073709551616 = 0 AND (k.d - s.d) % 18446744073709551616 = 0) IS NOT TRUE
        ORDER BY run_id, sink_id;
    -- identified, and not for every auditor
    IF has_table_privilege('epro_etl.correction', 'SELECT') THEN
        RETURN QUERY
            SELECT 'correction', t.writer, t.seq, format('correction %s', coalesce(c.correction_id::text, t.new_value ->> 'correction_id')),
                   CASE WHEN c.correction_id IS NULL THEN 'the earlier original is not there' WHEN t.seq IS NULL THEN 'it is not in the audit trail' ELSE 'the earlier original is another one' END
            FROM epro_etl.correction c
            FULL JOIN (SELECT * FROM epro_etl.audit_trail t WHERE t.object = 'quarantine' AND t.action = 'correct') t ON t.new_value ->> 'correction_id' = c.correction_id::text
            WHERE t.new_value ->> 'digest' IS DISTINCT FROM encode(sha256(epro_etl.audit_bytes(ARRAY[c.correction_id::text, c.quarantine_id::text, c.run_id::text, c.source_id,
                  c.original::text, epro_etl.audit_instant(c.corrected_at), c.corrected_by, c.salt::text])), 'hex') ORDER BY 4;
    ELSE
        problem := 'not checked';
        object := 'correction';
        detail := 'you may not read the earlier originals';
        RETURN NEXT;
    END IF;
    -- and what writes them
    RETURN QUERY
        SELECT 'trigger', NULL::uuid, NULL::bigint, a.relation, format('trigger %s %s', a.name, CASE WHEN t.oid IS NULL THEN 'is not there' ELSE 'is not always enabled' END)
        FROM epro_etl.audit_triggers() a
        LEFT JOIN pg_class c ON c.relnamespace = 'epro_etl'::regnamespace AND c.relname = a.relation
        LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = a.name AND t.tgfoid::regproc::text = substring(a.fires FROM 'FUNCTION (.*)[(]')
        WHERE t.tgenabled IS DISTINCT FROM 'A' ORDER BY a.relation, a.name;
END $$;
COMMENT ON FUNCTION epro_etl.verify_audit(jsonb) IS
    'Where the audit trail breaks: a row a problem, none when it is whole. changed, missing, unlinked: of records; cut, beyond, beheaded, lost: of chains; kept: against heads from audit_heads(); ledger, findings, superseded, correction: what it is about; trigger: what writes and guards it';

-- Who updates may be another than who has made the extension: its objects have one owner.
DO $$
DECLARE
    owner oid := (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = 'epro_etl.run_ledger'::regclass);
    made text;
BEGIN
    FOR made IN
        SELECT format('TABLE %s', c.oid::regclass) FROM pg_catalog.pg_class c
            WHERE c.relnamespace = 'epro_etl'::regnamespace AND c.relkind = 'r' AND c.relowner <> owner AND c.relname IN ('audit_trail', 'audit_writer', 'correction')
        UNION ALL
        SELECT format('FUNCTION %s', p.oid::regprocedure) FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'epro_etl'::regnamespace AND p.proowner <> owner AND (p.proname LIKE 'audit\_%' OR p.proname IN ('verify_audit', 'odm_text'))
    LOOP
        EXECUTE format('ALTER %s OWNER TO %s', made, owner::regrole);
    END LOOP;
END $$;

-- Its first words: that it begins here, and what was there, so that it can be held against the ledger from now on.
DO $$
DECLARE
    writer uuid := gen_random_uuid();
    seq bigint := 0;
    at timestamptz;
    hash bytea;
    previous bytea;
    request jsonb := nullif(current_setting('epro_etl.context', true), '')::jsonb;
    reason text;
    counts jsonb := '{}';
    relation text;
    n bigint;
    said record;
BEGIN
    FOR relation IN SELECT DISTINCT t.relation FROM epro_etl.audit_triggers() t WHERE t.relation NOT IN ('audit_trail', 'audit_writer', 'correction') ORDER BY 1 LOOP
        EXECUTE format('SELECT count(*) FROM epro_etl.%I', relation) INTO n;
        counts := counts || jsonb_build_object(relation, n);
    END LOOP;
    FOR said IN
        SELECT * FROM (
            SELECT 0 AS step, NULL::bigint AS run_id, 'update' AS action, 'extension' AS object, '{"version": "0.1.0"}'::jsonb AS old_value,
                   jsonb_build_object('version', '0.2.0', 'rows', counts) AS new_value
            UNION ALL
            SELECT 1, l.run_id, 'begin', 'run_ledger', NULL, epro_etl.audit_run(l.run_id, false) FROM epro_etl.run_ledger l
            UNION ALL
            SELECT 2, l.run_id, 'end', 'run_ledger', NULL, epro_etl.audit_run(l.run_id, true) FROM epro_etl.run_ledger l WHERE l.status IS NOT NULL
            UNION ALL
            -- as account.c sums them up, but for the overflow, which verify_audit() takes off
            SELECT 3, s.run_id, 'overwrite', 'superseded', NULL,
                   jsonb_build_object('run_id', s.run_id, 'sink_id', s.sink_id, 'target', min(s.target), 'rows', count(*), 'sum', jsonb_build_array(sum(p.a::numeric), sum(p.b::numeric), sum(p.c::numeric), sum(p.d::numeric)))
            FROM epro_etl.superseded s
            CROSS JOIN LATERAL (SELECT encode(sha256(epro_etl.audit_bytes(ARRAY[s.superseded_id::text, s.sink_id::text, s.target, s.run_id::text, s.source_id, s.earlier_run_id::text,
                                                                           s.earlier_source_id, s."row"::text, epro_etl.audit_instant(s.superseded_at)])), 'hex') AS h) x
            CROSS JOIN LATERAL (SELECT ('x' || substr(h, 1, 16))::bit(64)::bigint AS a, ('x' || substr(h, 17, 16))::bit(64)::bigint AS b,
                                       ('x' || substr(h, 33, 16))::bit(64)::bigint AS c, ('x' || substr(h, 49, 16))::bit(64)::bigint AS d) p
            GROUP BY s.run_id, s.sink_id) v
        ORDER BY v.run_id NULLS FIRST, v.step
    LOOP
        seq := seq + 1;
        at := clock_timestamp();
        previous := hash;
        reason := coalesce(request ->> 'reason', CASE WHEN said.step > 0 THEN 'was there when the audit trail began' END);
        hash := sha256(epro_etl.audit_bytes(ARRAY[writer::text, seq::text, epro_etl.audit_instant(at), session_user::text, current_user::text, request ->> 'actor',
            said.action, said.object, said.old_value::text, said.new_value::text, reason, request::text, NULL, encode(previous, 'hex')]));
        INSERT INTO epro_etl.audit_trail
            VALUES (writer, seq, at, session_user, current_user, request ->> 'actor', said.action, said.object, said.old_value, said.new_value, reason, request, NULL, previous, hash);
    END LOOP;
    INSERT INTO epro_etl.audit_writer VALUES (writer, 1, seq, hash);
END $$;

DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT * FROM epro_etl.audit_triggers() LOOP
        EXECUTE pg_catalog.format('CREATE TRIGGER %I ', t.name) || pg_catalog.format(t.fires, pg_catalog.format('epro_etl.%I', t.relation));
        EXECUTE pg_catalog.format('ALTER TABLE epro_etl.%I ENABLE ALWAYS TRIGGER %I', t.relation, t.name);
    END LOOP;
END $$;
--
-- Privileges, of what is new.  Here each is named: what is taken from PUBLIC on ALL
-- would make what was granted to others the extension's own, which no dump has.
--
REVOKE ALL ON TABLE epro_etl.audit_trail, epro_etl.audit_writer, epro_etl.correction FROM PUBLIC;
REVOKE ALL ON SEQUENCE epro_etl.correction_correction_id_seq FROM PUBLIC;
REVOKE ALL ON FUNCTION epro_etl.odm_text(text), epro_etl.audit_change(), epro_etl.audit_count(), epro_etl.audit_correction(), epro_etl.audit_requeue(), epro_etl.audit_refuse(),
    epro_etl.audit_run(bigint, boolean), epro_etl.audit_bytes(text[]), epro_etl.audit_instant(timestamptz), epro_etl.audit_triggers(), epro_etl.audit_heads(), epro_etl.verify_audit(jsonb) FROM PUBLIC;

-- nor may who comes to own them
DO $$
BEGIN
    EXECUTE (SELECT format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON epro_etl.audit_trail, epro_etl.audit_writer, epro_etl.correction, epro_etl.superseded FROM %s', c.relowner::regrole)
             FROM pg_catalog.pg_class c WHERE c.oid = 'epro_etl.run_ledger'::regclass);
END $$;
-- the table that was there already: for pg_dump, what others were granted on it is not the extension's own
UPDATE pg_catalog.pg_init_privs SET initprivs = (SELECT p.initprivs FROM pg_catalog.pg_init_privs p WHERE p.objoid = 'epro_etl.audit_trail'::regclass AND p.classoid = 'pg_class'::regclass AND p.objsubid = 0)
    WHERE objoid = 'epro_etl.superseded'::regclass AND classoid = 'pg_class'::regclass AND objsubid = 0;
-- (from PostgreSQL 17 on it is also written down whom they name)
DELETE FROM pg_catalog.pg_shdepend d USING pg_catalog.pg_class c
    WHERE c.oid = 'epro_etl.superseded'::regclass AND d.dbid = (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = current_database())
      AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i' AND d.refobjid <> c.relowner;

SELECT pg_catalog.pg_extension_config_dump('epro_etl.audit_trail', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.audit_writer', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.correction', '');
SELECT pg_catalog.pg_extension_config_dump('epro_etl.correction_correction_id_seq', '');
