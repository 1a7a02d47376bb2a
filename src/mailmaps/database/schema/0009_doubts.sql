-- Rows that do not mean what they seem to: `mailmaps check` lists them. A view, so that a role without
-- rights on the tables may read it.

CREATE VIEW mailmaps.doubtful_rows AS
   SELECT 'domains' AS subject,
          format('"%s" %s, so it is left out', domain,
                 coalesce(mailmaps.domain_problem(domain), 'is no domain')) AS text
   FROM public.domains
   WHERE mailmaps.domain_problem(domain) IS NOT NULL OR left(domain, 1) = '.' COLLATE "C"
   UNION ALL
   SELECT 'domains', format('"%s" has an empty transport and gets no mail', domain)
   FROM public.domains WHERE transport = '' COLLATE "C"
   UNION ALL
   SELECT 'domain_aliases', format('"%s" is in domains too, and that counts', a.domain)
   FROM mailmaps.domain_aliases a
   JOIN public.domains d ON mailmaps.fold(d.domain) COLLATE "C" = mailmaps.fold(a.domain) COLLATE "C"
   UNION ALL
   SELECT 'relays', format('"%s" is in domains or domain_aliases too, and that counts', r.domain)
   FROM mailmaps.relays r
   WHERE EXISTS (SELECT FROM mailmaps.our_domains o WHERE o.domain = mailmaps.fold(r.domain) COLLATE "C")
   UNION ALL
   SELECT 'user_addresses',
          format('"%s" %s, so no lookup reaches it', alias, mailmaps.address_problem(alias))
   FROM public.user_addresses WHERE mailmaps.address_problem(alias) IS NOT NULL
   UNION ALL
   SELECT 'user_addresses', format('"%s" is in a domain that is not ours', alias)
   FROM public.user_addresses
   WHERE mailmaps.address_problem(alias) IS NULL
     AND NOT EXISTS (SELECT FROM mailmaps.our_domains o
                     WHERE o.domain = mailmaps.domain_of(mailmaps.fold(alias)) COLLATE "C")
   UNION ALL
   SELECT 'user_accounts', format('email "%s" of %s %s, so its mail goes astray', email, username,
                                  mailmaps.address_problem(email))
   FROM public.user_accounts WHERE mailmaps.address_problem(email) IS NOT NULL
   UNION ALL
   SELECT 'user_accounts', format('"%s" is the email of %s; mail goes to one of them', email_key,
                                  string_agg(username, ' and ' ORDER BY username COLLATE "C"))
   FROM mailmaps.accounts GROUP BY email_key HAVING count(*) > 1
   UNION ALL
   SELECT 'user_accounts', format('email "%s" of %s is an address of %s, who gets the mail', a.email,
                                  a.username, l.username)
   FROM mailmaps.accounts a
   JOIN mailmaps.listed_addresses l ON l.key = a.email_key AND l.username <> a.username
   UNION ALL
   SELECT 'forwards', format('"%s" to "%s" answers nothing: that domain has no catch-all; '
                             'a row in domain_aliases would make each of its addresses known', address, target)
   FROM mailmaps.forwards
   WHERE left(target_key, 1) = '@' COLLATE "C" AND NOT mailmaps.can_receive(target_key)
   UNION ALL
   SELECT 'user_accounts', format('%s is inactive, yet gets mail', username)
   FROM public.user_accounts
   WHERE active COLLATE "C" NOT IN ('1', 't', 'T', 'y', 'Y')
     AND (SELECT honour_active FROM mailmaps.settings) IS NULL;
