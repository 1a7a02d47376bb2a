-- What the how-to's tables cannot hold. Columns `key`, `target_key` are folded copies that lookups use.

-- One row: what the views need to know of mailmaps.toml. `mailmaps schema create|upgrade` writes it.
CREATE TABLE mailmaps.settings (
   only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
   -- Whether user_accounts.active stops mail; NULL: nobody has decided yet, and it does not.
   honour_active boolean,
   recipient_delimiter text NOT NULL DEFAULT '',
   owner_request_special boolean NOT NULL DEFAULT true,
   double_bounce_sender text NOT NULL DEFAULT 'double-bounce'
);
INSERT INTO mailmaps.settings DEFAULT VALUES;

-- An address, or a catch-all @domain, to one target a row; any address, outside ones too. A target @other
-- means: the same local part there.
CREATE TABLE mailmaps.forwards (
   address text NOT NULL
      CHECK (mailmaps.accept('forwards.address', address, mailmaps.address_problem(address))),
   target text NOT NULL
      CHECK (mailmaps.accept('forwards.target', target, mailmaps.address_problem(target))),
   key text COLLATE "C" GENERATED ALWAYS AS (mailmaps.fold(address)) STORED,
   target_key text COLLATE "C" GENERATED ALWAYS AS (
      mailmaps.fold(CASE WHEN left(target, 1) = '@' COLLATE "C" THEN mailmaps.local_of(address) ELSE '' END
                    || target)
   ) STORED,
   PRIMARY KEY (address, target)
);
CREATE INDEX forwards_key ON mailmaps.forwards (key);

-- Every address of `target` is one of `domain` too.
CREATE TABLE mailmaps.domain_aliases (
   domain text PRIMARY KEY
      CHECK (mailmaps.accept('domain_aliases.domain', domain, CASE
         WHEN left(domain, 1) = '.' COLLATE "C" THEN 'is no domain' ELSE mailmaps.domain_problem(domain) END)),
   target text NOT NULL REFERENCES public.domains (domain) ON UPDATE CASCADE
);
CREATE UNIQUE INDEX domain_aliases_folded ON mailmaps.domain_aliases ((mailmaps.fold(domain) COLLATE "C"));
CREATE INDEX domain_aliases_target ON mailmaps.domain_aliases ((mailmaps.fold(target) COLLATE "C"));

-- Domains that we only pass on. Whether `example.com` or `.example.com` stands for subdomains is decided by
-- Postfix's parent_domain_matches_subdomains: by default the first in relay_domains, the second in
-- transport_maps, so a relay with subdomains wants both rows.
CREATE TABLE mailmaps.relays (
   domain text PRIMARY KEY CHECK (mailmaps.accept('relays.domain', domain, mailmaps.domain_problem(domain))),
   transport text NOT NULL DEFAULT 'relay:' CHECK (transport <> '' COLLATE "C")
);
CREATE UNIQUE INDEX relays_folded ON mailmaps.relays ((mailmaps.fold(domain) COLLATE "C"));

-- Who exists there; @domain for everybody.
CREATE TABLE mailmaps.relay_recipients (
   address text PRIMARY KEY
      CHECK (mailmaps.accept('relay_recipients.address', address, mailmaps.address_problem(address)))
);
CREATE UNIQUE INDEX relay_recipients_folded
   ON mailmaps.relay_recipients ((mailmaps.fold(address) COLLATE "C"));
