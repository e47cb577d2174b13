BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL search_path = '';
SET LOCAL standard_conforming_strings = on;
SET LOCAL lock_timeout = '2s';
SET LOCAL quote_all_identifiers = off;

-- routines
SELECT p.oid, n.nspname, p.proname, l.lanname, p.provolatile = 'v', p.prokind = 'a',
       p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int,
       CASE WHEN p.provariadic <> 0 THEN 1000
            -- CALL names its OUT arguments too
            WHEN p.prokind = 'p' THEN coalesce(pg_catalog.cardinality(p.proallargtypes), p.pronargs)
            ELSE p.pronargs END,
       EXISTS (SELECT FROM pg_catalog.pg_proc AS b WHERE b.proname = p.proname AND b.oid < 16384),
       e.extname, p.prosrc, pg_catalog.pg_get_function_sqlbody(p.oid),
       pg_catalog.pg_get_expr(p.proargdefaults, 0),
       pg_catalog.array_to_string(p.proconfig, E'\n')
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_depend AS d
  ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
WHERE p.oid >= 16384;

-- operators
SELECT o.oid, n.nspname, o.oprname, o.oprkind <> 'b'
FROM pg_catalog.pg_operator AS o
JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
WHERE o.oid >= 16384;

-- types, but the row types of relations
SELECT t.oid, n.nspname, t.typname, t.typtype IN ('b', 'r', 'm') AND t.typcategory <> 'A',
       (SELECT pg_catalog.string_agg(pg_catalog.pg_get_expr(c.conbin, 0), ', ')
        FROM pg_catalog.pg_constraint AS c WHERE c.contypid = t.oid AND c.conbin IS NOT NULL)
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class AS r ON r.oid = t.typrelid
WHERE t.oid >= 16384 AND (r.oid IS NULL OR r.relkind = 'c');

-- relations
SELECT c.oid, n.nspname, c.relname,
       CASE WHEN c.relkind <> 'f' THEN 'rows'
            WHEN w.fdwname = 'file_fdw' AND NOT EXISTS (
              SELECT FROM pg_catalog.unnest(f.ftoptions) AS o (o)
              WHERE pg_catalog.starts_with(o, 'program=')) THEN 'file'
            ELSE 'foreign' END,
       CASE WHEN c.relkind = 'v' AND c.oid >= 16384 THEN pg_catalog.pg_get_viewdef(c.oid) END
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_foreign_table AS f ON f.ftrelid = c.oid
LEFT JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver
LEFT JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND (c.relpersistence <> 't' OR c.relkind = 'v')
  AND n.nspname <> 'pg_toast';

-- row-security policies in force
SELECT p.polrelid, e.expression
FROM pg_catalog.pg_policy AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
CROSS JOIN LATERAL (VALUES (pg_catalog.pg_get_expr(p.polqual, p.polrelid)),
                           (pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))) AS e (expression)
WHERE c.relrowsecurity AND e.expression IS NOT NULL;

-- rules
SELECT r.ev_class, r.ev_type, r.is_instead AND r.ev_qual = '<>', pg_catalog.pg_get_ruledef(r.oid)
FROM pg_catalog.pg_rewrite AS r
WHERE r.oid >= 16384 AND r.ev_type IN ('2', '3', '4');

-- who uses what: class and number of the user, class and number of the used, name of the used where
-- it is a built-in function
SELECT 'routine', a.aggfnoid::oid, 'routine', f.oid, f.proname
FROM pg_catalog.pg_aggregate AS a
JOIN pg_catalog.pg_proc AS f
  ON f.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
               a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
WHERE a.aggfnoid >= 16384
UNION ALL
SELECT 'operator', o.oid, 'routine', f.oid, f.proname
FROM pg_catalog.pg_operator AS o
JOIN pg_catalog.pg_proc AS f ON f.oid = o.oprcode
WHERE o.oid >= 16384
UNION ALL
-- casts, by the types they begin or end at; between built-in types every statement may use them
SELECT CASE WHEN t.oid IS NULL THEN 'everywhere' ELSE 'type' END, t.oid, 'routine', f.oid, f.proname
FROM pg_catalog.pg_cast AS c
JOIN pg_catalog.pg_proc AS f ON f.oid = c.castfunc
LEFT JOIN pg_catalog.pg_type AS t ON t.oid IN (c.castsource, c.casttarget) AND t.oid >= 16384
WHERE c.oid >= 16384
UNION ALL
-- values in a relation that are converted without being asked
SELECT 'relation', a.attrelid, 'routine', f.oid, f.proname
FROM pg_catalog.pg_cast AS c
JOIN pg_catalog.pg_proc AS f ON f.oid = c.castfunc
JOIN pg_catalog.pg_attribute AS a ON a.atttypid = c.castsource AND a.attnum > 0
WHERE c.oid >= 16384 AND c.castsource >= 16384 AND c.castcontext = 'i'
UNION ALL
SELECT 'relation', r.oid, 'routine', f.oid, f.proname
FROM pg_catalog.pg_cast AS c
JOIN pg_catalog.pg_proc AS f ON f.oid = c.castfunc
JOIN pg_catalog.pg_class AS r ON r.reltype = c.castsource
WHERE c.oid >= 16384 AND c.castsource >= 16384 AND c.castcontext = 'i'
UNION ALL
-- fields of composite types
SELECT 'type', r.reltype, 'type', a.atttypid, NULL
FROM pg_catalog.pg_class AS r
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND a.atttypid >= 16384
WHERE r.relkind = 'c' AND r.oid >= 16384
UNION ALL
-- elements of arrays
SELECT 'type', t.oid, 'type', t.typelem, NULL
FROM pg_catalog.pg_type AS t
WHERE t.typcategory = 'A' AND t.typelem >= 16384
UNION ALL
-- what views, policies, functions, types and domain conditions were made with
SELECT u.class, u.id,
       CASE d.refclassid WHEN 'pg_catalog.pg_proc'::regclass THEN 'routine'
                         WHEN 'pg_catalog.pg_class'::regclass THEN 'relation'
                         WHEN 'pg_catalog.pg_type'::regclass THEN 'type'
                         ELSE 'operator' END,
       d.refobjid, NULL
FROM pg_catalog.pg_depend AS d
CROSS JOIN LATERAL (
  SELECT 'routine' AS class, d.objid AS id WHERE d.classid = 'pg_catalog.pg_proc'::regclass
  UNION ALL
  SELECT 'type', d.objid WHERE d.classid = 'pg_catalog.pg_type'::regclass
  UNION ALL
  SELECT 'relation', r.ev_class FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_class AS v ON v.oid = r.ev_class AND v.relkind = 'v'
  WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_type = '1'
    AND r.ev_class <> d.refobjid
  UNION ALL
  SELECT 'relation', p.polrelid FROM pg_catalog.pg_policy AS p
  WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid AND p.polrelid <> d.refobjid
  UNION ALL
  SELECT 'type', c.contypid FROM pg_catalog.pg_constraint AS c
  WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND c.oid = d.objid AND c.contypid <> 0
) AS u
WHERE d.deptype IN ('n', 'a') AND d.refobjid >= 16384
  AND d.classid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_type'::regclass,
                    'pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_policy'::regclass,
                    'pg_catalog.pg_constraint'::regclass)
  AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_class'::regclass,
                       'pg_catalog.pg_type'::regclass, 'pg_catalog.pg_operator'::regclass)
UNION ALL
-- support functions of operator classes: indexes and partition keys that name the class run them, and
-- whatever sorts values of a type that has a class of its own
SELECT u.class, u.id, 'routine', f.oid, f.proname
FROM pg_catalog.pg_amproc AS s
JOIN pg_catalog.pg_proc AS f ON f.oid = s.amproc AND f.oid >= 16384
JOIN pg_catalog.pg_opclass AS c ON c.opcfamily = s.amprocfamily
CROSS JOIN LATERAL (
  SELECT 'relation' AS class, i.indrelid AS id FROM pg_catalog.pg_index AS i
  WHERE c.oid = ANY (i.indclass)
  UNION ALL
  SELECT 'relation', k.partrelid FROM pg_catalog.pg_partitioned_table AS k
  WHERE c.oid = ANY (k.partclass)
  UNION ALL
  SELECT 'relation', a.attrelid FROM pg_catalog.pg_attribute AS a
  WHERE c.opcintype >= 16384 AND a.atttypid = c.opcintype AND a.attnum > 0
  UNION ALL
  SELECT 'type', c.opcintype WHERE c.opcintype >= 16384
) AS u
UNION ALL
-- tables above a foreign one, whose rows a SELECT of them reads too
SELECT 'relation', up.id, 'relation', up.foreign_id, NULL
FROM (
  WITH RECURSIVE up (id, foreign_id) AS (
    SELECT i.inhparent, i.inhrelid
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
    WHERE c.relkind = 'f'
    UNION
    SELECT i.inhparent, up.foreign_id
    FROM up JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = up.id
  )
  SELECT id, foreign_id FROM up
) AS up;

COMMIT;
