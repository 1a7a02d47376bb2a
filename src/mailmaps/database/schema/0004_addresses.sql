-- Addresses taken apart as mailmaps.maps.address does. External form has an RFC 822 quoted local part
-- where one is needed ("john doe"@example.com); views and tables hold external form only.

-- The part after the last @; NULL without one.
CREATE FUNCTION mailmaps.domain_of(address text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
   WHEN strpos(address COLLATE "C", '@') > 0 THEN split_part(address COLLATE "C", '@', -1)
END;

-- The part before the last @, in the form it has there; empty for a catch-all, NULL without @.
CREATE FUNCTION mailmaps.local_of(address text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(address, -1 - char_length(mailmaps.domain_of(address)));

-- quote_822_local.c is_822_dot_string(), turned round.
CREATE FUNCTION mailmaps.needs_quotes(local text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN local COLLATE "C" ~ '^\.|\.\.|\.$|^$|[\u0001-\u0020\u007f()<>@,;:\\"\[\]]';

CREATE FUNCTION mailmaps.unquoted(local text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
   WHEN local COLLATE "C" ~ '^".*"$'
      THEN regexp_replace(substr(local, 2, char_length(local) - 2) COLLATE "C", '\\(.)', '\1', 'g')
   ELSE local
END;

CREATE FUNCTION mailmaps.quoted(local text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
   WHEN mailmaps.needs_quotes(local)
      THEN '"' || regexp_replace(local COLLATE "C", '(["\\\r])', '\\\1', 'g') || '"'
   ELSE local
END;

-- Why no lookup can ever reach, or no reply carry, this address or catch-all (@domain); NULL: it is fine.
CREATE FUNCTION mailmaps.address_problem(address text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   local CONSTANT text := mailmaps.local_of(address);
   domain CONSTANT text := mailmaps.domain_of(address);
   external text;
BEGIN
   IF address COLLATE "C" ~ '[\u0001-\u001f\u007f-\u009f]' THEN
      RETURN 'holds a control character';
   ELSIF octet_length(address) > 254 THEN
      RETURN 'is longer than 254 bytes (RFC 5321 4.5.3.1.3)';
   ELSIF coalesce(domain, '') = '' THEN
      RETURN 'has no domain';
   ELSIF domain COLLATE "C" ~ '[\u0001-\u0020"(),;<>\\]|^\.|\.$|\.\.' THEN  -- Postfix drops a final dot
      RETURN 'has a domain that is none';
   ELSIF local <> '' COLLATE "C" THEN
      external := mailmaps.quoted(mailmaps.unquoted(local));
      IF external <> local COLLATE "C" THEN
         RETURN format('is not in external form, which is %s@%s', external, domain);
      END IF;
   END IF;
   RETURN NULL;
END
$function$;

-- The same for a domain on its own.
CREATE FUNCTION mailmaps.domain_problem(domain text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
   WHEN domain COLLATE "C" ~ '[\u0001-\u001f\u007f-\u009f]' THEN 'holds a control character'
   WHEN octet_length(domain) > 253 THEN 'is longer than 253 bytes'
   WHEN domain COLLATE "C" ~ '^\.?$|[\u0020"(),:;<>@\\*]|\.$|\.\.' THEN 'is no domain'
END;

-- For CHECK constraints: says what is wrong instead of the constraint's name.
CREATE FUNCTION mailmaps.accept(what text, value text, problem text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   IF problem IS NOT NULL THEN
      RAISE EXCEPTION '% "%" %', what, value, problem USING ERRCODE = 'check_violation';
   END IF;
   RETURN true;
END
$function$;
