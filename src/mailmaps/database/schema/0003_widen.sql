-- dependents: public.domains, public.user_accounts, public.user_addresses
-- The how-to's tables fit for today: any address, any hash, and an index for every question asked.
-- Nothing is narrowed, so no old row can stand in the way; case duplicates are looked for beforehand.

ALTER TABLE public.domains
   ALTER COLUMN domain TYPE text,
   ALTER COLUMN transport TYPE text,
   ADD CONSTRAINT domains_domain_key UNIQUE (domain);

ALTER TABLE public.user_accounts
   ALTER COLUMN username TYPE text,
   ALTER COLUMN password TYPE text,
   ALTER COLUMN email TYPE text,
   ALTER COLUMN mailbox TYPE text,
   -- smtpd_sender_login_maps is a list split at blanks and commas, and '!inactive' must be nobody.
   ADD CONSTRAINT user_accounts_username_can_own_a_sender
      CHECK (username COLLATE "C" !~ '^!|[[:space:],]|^$');

ALTER TABLE public.user_addresses
   ALTER COLUMN username TYPE text,
   ALTER COLUMN alias TYPE text;

CREATE UNIQUE INDEX domains_folded ON public.domains ((mailmaps.fold(domain) COLLATE "C"));
CREATE UNIQUE INDEX user_addresses_folded ON public.user_addresses ((mailmaps.fold(alias) COLLATE "C"));
CREATE INDEX user_accounts_email_folded ON public.user_accounts ((mailmaps.fold(email) COLLATE "C"));
-- The how-to's own uids.cf and gids.cf ask for the email as it is.
CREATE INDEX user_accounts_email ON public.user_accounts (email);
CREATE INDEX user_accounts_gid ON public.user_accounts (gid);
