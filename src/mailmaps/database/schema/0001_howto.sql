-- The tables and views of the how-to, word for word. A database made by the how-to has them already:
-- there this file counts as applied, and everything after it is the same for both.

CREATE TABLE domains
(
 gid       INTEGER UNIQUE NOT NULL,
 domain    VARCHAR(128) NOT NULL,
 transport VARCHAR(64) NOT NULL DEFAULT 'virtual:',
 PRIMARY KEY ( gid )
);

CREATE TABLE user_accounts
(
 username  VARCHAR(12) UNIQUE NOT NULL,
 uid       INTEGER NOT NULL,
 gid       INTEGER REFERENCES domains ( gid ),
 password  VARCHAR(32),
 email     VARCHAR(128) NOT NULL,
 mailbox   VARCHAR(128) NOT NULL,
 quota     INTEGER NOT NULL DEFAULT 25,
 active    CHAR(1) NOT NULL DEFAULT '0',
 PRIMARY KEY ( uid, gid )
);

CREATE TABLE user_addresses
(
 username  VARCHAR(12) REFERENCES user_accounts ( username ),
 alias     VARCHAR(128) UNIQUE NOT NULL,
 PRIMARY KEY ( username, alias )
);

CREATE VIEW postfix_mailboxes AS
     SELECT alias AS address, mailbox||'/' AS mailbox
     FROM user_accounts RIGHT JOIN user_addresses ON
            user_accounts.username = user_addresses.username;
CREATE VIEW postfix_aliases AS
     SELECT email AS address, alias
     FROM user_accounts RIGHT JOIN user_addresses ON
            user_accounts.username = user_addresses.username;
