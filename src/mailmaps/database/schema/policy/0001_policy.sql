-- What the policy service keeps, in a schema that stands alone: any database will do. Names are folded as
-- mailmaps folds them (`mailmaps limits set` does; by hand: lower case). The role mailwriter reads and writes it.

-- Who may send as what beyond his own addresses. `address`: an address, @domain for all of it, or * for anybody,
-- which needs networks. Without `networks` it holds from everywhere, without `expires` for ever.
CREATE TABLE mailpolicy.sender_grants (
   id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
   login text NOT NULL CHECK (login <> ''),
   address text NOT NULL CHECK (address ~ '^([*]|[^@]*@[^@[:space:]]+|".*"@[^@[:space:]]+)$'),
   expires timestamptz CHECK (isfinite(expires)),
   networks cidr[] CHECK (cardinality(networks) > 0 AND array_position(networks, NULL) IS NULL),
   reason text NOT NULL DEFAULT '',
   granted timestamptz NOT NULL DEFAULT now(),
   CHECK (address <> '*' OR networks IS NOT NULL)
);

-- Other limits than those of mailmaps.toml. A number that is NULL is the setting's, 0 is no limit.
CREATE TABLE mailpolicy.sending_limits (
   scope text NOT NULL CHECK (scope IN ('login', 'domain')),
   name text NOT NULL CHECK (name <> ''),
   messages_hour bigint CHECK (messages_hour >= 0),
   messages_day bigint CHECK (messages_day >= 0),
   recipients_hour bigint CHECK (recipients_hour >= 0),
   recipients_day bigint CHECK (recipients_day >= 0),
   exempt boolean NOT NULL DEFAULT false,
   reason text NOT NULL CHECK (reason <> ''),
   until timestamptz CHECK (isfinite(until)),
   since timestamptz NOT NULL DEFAULT now(),
   PRIMARY KEY (scope, name)
);

-- Counts up whenever one of the two changes; daemons ask for it every second or two, which also works through
-- PgBouncer.
CREATE TABLE mailpolicy.changes (
   only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
   number bigint NOT NULL
);
INSERT INTO mailpolicy.changes (number) VALUES (1);

CREATE FUNCTION mailpolicy.note_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
   UPDATE mailpolicy.changes SET number = number + 1;
   RETURN NULL;
END
$function$;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON mailpolicy.sender_grants
   FOR EACH STATEMENT EXECUTE FUNCTION mailpolicy.note_change();
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON mailpolicy.sending_limits
   FOR EACH STATEMENT EXECUTE FUNCTION mailpolicy.note_change();

-- What was sent, by minutes of the epoch. Older than a day it is of no use.
CREATE TABLE mailpolicy.sent (
   scope text NOT NULL,
   name text NOT NULL,
   minute integer NOT NULL,
   messages bigint NOT NULL,
   recipients bigint NOT NULL,
   PRIMARY KEY (scope, name, minute)
);
CREATE INDEX sent_minute ON mailpolicy.sent (minute);

-- The last batch of each daemon that was counted: one whose fate a lost connection hid is not counted twice.
CREATE TABLE mailpolicy.counters (
   counter uuid PRIMARY KEY,
   batch bigint NOT NULL,
   seen timestamptz NOT NULL DEFAULT now()
);

-- Senders that were refused, or would have been while [senders] mode = "observe".
CREATE TABLE mailpolicy.observed_senders (
   hour timestamptz NOT NULL,
   login text NOT NULL,  -- empty: not logged in
   sender text NOT NULL,
   client text NOT NULL,
   verdict text NOT NULL CHECK (verdict IN ('refused', 'would be refused', 'would be deferred')),
   why text NOT NULL,
   times bigint NOT NULL,
   first_seen timestamptz NOT NULL,
   last_seen timestamptz NOT NULL,
   PRIMARY KEY (hour, login, sender, client, verdict, why)
);

-- The windows end now: the current minute and the 60, or 1440, before it, so that no hour and no day, wherever
-- it begins, holds more than what is summed up here. (A clock that was ahead has left rows that are not yet. `+ 0`
-- and enable_seqscan: a plan made while the table was empty must be by the primary key all the same.)
CREATE FUNCTION mailpolicy.sent_lately(
   of_scope text, of_name text, OUT messages_hour bigint, OUT messages_day bigint,
   OUT recipients_hour bigint, OUT recipients_day bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   this_minute CONSTANT integer := floor(extract(epoch FROM clock_timestamp()) / 60);
BEGIN
   SELECT coalesce(sum(s.messages) FILTER (WHERE s.minute >= this_minute - 60), 0),
          coalesce(sum(s.messages), 0),
          coalesce(sum(s.recipients) FILTER (WHERE s.minute >= this_minute - 60), 0),
          coalesce(sum(s.recipients), 0)
      INTO messages_hour, messages_day, recipients_hour, recipients_day
      FROM mailpolicy.sent s
      WHERE s.scope = of_scope AND s.name = of_name
         AND s.minute + 0 BETWEEN this_minute - 1440 AND this_minute + 1;
END
$function$;

-- Counts one batch of a daemon: arrays of one length, an element for each message and each name that it counts
-- for (its login, its domain), those of one message side by side. `items` numbers the messages, `ages` is seconds
-- since each was let through, `passed_already` whether it was; if not, it is counted when all limits (NULL: none)
-- of all its names allow it. Returns for each element whether its message is counted, and what its name has sent
-- then.
--
-- One transaction, and each name locked: daemons that ask together are told one after the other. Locks are
-- taken in one order, so that no two wait for each other. A batch number that was counted already is answered
-- NULL and changes nothing.
CREATE FUNCTION mailpolicy.count_sent(
   counter_id uuid, batch_number bigint, items integer[], scopes text[], names text[], ages integer[],
   passed_already boolean[], more_messages bigint[], more_recipients bigint[],
   limits_messages_hour bigint[], limits_messages_day bigint[],
   limits_recipients_hour bigint[], limits_recipients_day bigint[])
RETURNS TABLE (item integer, passed boolean, scope text, name text, messages_hour bigint, messages_day bigint,
               recipients_hour bigint, recipients_day bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $function$
DECLARE
   this_minute CONSTANT integer := floor(extract(epoch FROM clock_timestamp()) / 60);
   counted boolean;
   first integer := 1;
   last integer;
   fits boolean;
   lately record;
   sender record;
BEGIN
   -- A statement that was given up may still wait here, while the same batch comes again.
   PERFORM pg_advisory_xact_lock(hashtextextended(counter_id::text, 1));
   FOR sender IN SELECT DISTINCT u.s, u.n FROM unnest(scopes, names) AS u (s, n) ORDER BY u.s, u.n LOOP
      PERFORM pg_advisory_xact_lock(hashtextextended(sender.s || ' ' || sender.n, 0));
   END LOOP;
   counted := EXISTS (SELECT FROM mailpolicy.counters c WHERE c.counter = counter_id AND c.batch >= batch_number);
   WHILE first <= cardinality(items) LOOP
      last := first;
      WHILE last < cardinality(items) AND items[last + 1] = items[first] LOOP
         last := last + 1;
      END LOOP;
      fits := true;
      FOR place IN first .. last LOOP
         lately := mailpolicy.sent_lately(scopes[place], names[place]);
         fits := fits AND (passed_already[place] OR counted OR (
            coalesce(lately.messages_hour + more_messages[place] <= limits_messages_hour[place], true)
            AND coalesce(lately.messages_day + more_messages[place] <= limits_messages_day[place], true)
            AND coalesce(lately.recipients_hour + more_recipients[place] <= limits_recipients_hour[place], true)
            AND coalesce(lately.recipients_day + more_recipients[place] <= limits_recipients_day[place], true)));
      END LOOP;
      FOR place IN first .. last LOOP
         IF fits AND NOT counted THEN
            INSERT INTO mailpolicy.sent AS s (scope, name, minute, messages, recipients)
               VALUES (scopes[place], names[place], this_minute - ages[place] / 60,
                       more_messages[place], more_recipients[place])
               ON CONFLICT ON CONSTRAINT sent_pkey DO UPDATE
                  SET messages = s.messages + excluded.messages,
                      recipients = s.recipients + excluded.recipients;
         END IF;
         lately := mailpolicy.sent_lately(scopes[place], names[place]);
         item := items[place];
         passed := CASE WHEN NOT counted THEN fits END;
         scope := scopes[place];
         name := names[place];
         messages_hour := lately.messages_hour;
         messages_day := lately.messages_day;
         recipients_hour := lately.recipients_hour;
         recipients_day := lately.recipients_day;
         RETURN NEXT;
      END LOOP;
      first := last + 1;
   END LOOP;
   INSERT INTO mailpolicy.counters AS c (counter, batch) VALUES (counter_id, batch_number)
      ON CONFLICT (counter) DO UPDATE SET batch = greatest(c.batch, excluded.batch), seen = now();
END
$function$;

-- Drops what is of no use any more, some of it at a time; whether there may be more. Daemons call it.
CREATE FUNCTION mailpolicy.forget() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
   this_minute CONSTANT integer := floor(extract(epoch FROM now()) / 60);
   most CONSTANT integer := 10000;
   gone integer;
BEGIN
   DELETE FROM mailpolicy.counters WHERE seen < now() - interval '2 days';
   DELETE FROM mailpolicy.observed_senders
      WHERE hour NOT BETWEEN now() - interval '30 days' AND now() + interval '1 day';
   DELETE FROM mailpolicy.sent s
      WHERE s.ctid = ANY (ARRAY(SELECT o.ctid FROM mailpolicy.sent o
         WHERE o.minute < this_minute - 1500 OR o.minute > this_minute + 60 LIMIT most));
   GET DIAGNOSTICS gone = ROW_COUNT;
   RETURN gone = most;
END
$function$;
