-- Whether a domain is ours was found by reading public.domains whole: PostgreSQL pushes a key into a UNION ALL only
-- when no arm has a WHERE (is_safe_append_member, prepjointree.c). So the condition becomes part of the key.

-- The domain as it is asked for; NULL for a row that no lookup can mean.
CREATE FUNCTION mailmaps.our_domain(domain text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
   WHEN mailmaps.domain_problem(domain) IS NULL AND left(domain, 1) <> '.' COLLATE "C" THEN mailmaps.fold(domain)
END;

CREATE INDEX domains_ours ON public.domains ((mailmaps.our_domain(domain) COLLATE "C"));

CREATE OR REPLACE VIEW mailmaps.our_domains AS
   SELECT mailmaps.our_domain(domain) COLLATE "C" AS domain FROM public.domains
   UNION ALL SELECT mailmaps.fold(domain) COLLATE "C" FROM mailmaps.domain_aliases;
