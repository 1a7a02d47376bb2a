-- Dovecot's logins and lookups by mailmaps, for Dovecot 2.3 and 2.4; passdb and userdb each name it:
--
--   2.3  passdb { driver = lua   args = file=/usr/lib/mailmaps/mailmaps.lua blocking=yes }
--   2.4  passdb lua { lua_file = /usr/lib/mailmaps/mailmaps.lua }
--
-- Contract: each call asks `mailmaps serve` one question over its unix socket, one line each way, and gives
-- Dovecot what it answers. Whatever goes wrong is INTERNAL_FAILURE, "cannot say now", which an IMAP client hears
-- as [UNAVAILABLE] and Postfix as 451; never a wrong password, never an unknown user. No password is ever in a
-- message.
--
-- It needs luasocket (Debian: lua-socket) and runs in auth-worker processes, where waiting hinders nobody.
-- Source: src/auth/db-lua.c of 2.3.19.1 and 2.4.1.

local unix = require "socket.unix"

local DEFAULT_SOCKET = "/run/mailmaps/login.sock"
local PATIENCE = 9 -- seconds; the daemon answers within 8, or is not there

-- Only 2.4 brings tabescape (src/lib-lua/dlua-dovecot.c:751 of 2.4.1; 2.4.0:729). It tells the dialect of the
-- fields (mail= and quota_rule=, or mail_path= and quota_storage_size=): the other one is ignored in silence.
local DOVECOT = dovecot.tabescape and "2.4" or "2.3"

-- Dovecot's tab-escape (src/lib/strescape.c). What Dovecot hands over is C's, so there is no NUL to escape.
local ESCAPES = { ["\1"] = "\0011", ["\t"] = "\1t", ["\r"] = "\1r", ["\n"] = "\1n" }
local UNESCAPES = { ["0"] = "\0", ["1"] = "\1", t = "\t", r = "\r", n = "\n" }

local function escaped(value)
  return (value:gsub("[\1\t\r\n]", ESCAPES))
end

local function unescaped(value)
  return (value:gsub("\1(.)", UNESCAPES))
end

-- Where the daemon listens: by the environment, by the file beside this one, or as usual.
local function socket_path()
  local named = os.getenv("MAILMAPS_LOGIN_SOCKET")
  if named and named ~= "" then
    return named
  end
  local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "/usr/lib/mailmaps/"
  local file = io.open(folder .. "login-socket")
  if not file then
    return DEFAULT_SOCKET
  end
  local line = file:read("*l")
  file:close()
  return (line or ""):match("^%s*(.-)%s*$")
end

local SOCKET = socket_path()

-- The line of a question. 2.4 says protocol, remote_ip and local_ip where 2.3 says service, rip and lip.
local function question(kind, request, password)
  local line = {
    kind,
    "user=" .. escaped(request.user),
    "service=" .. escaped(request.service or request.protocol or ""),
    "dovecot=" .. DOVECOT,
  }
  local fields = {
    password = password,
    rip = request.rip or request.remote_ip,
    lip = request.lip or request.local_ip,
  }
  for name, value in pairs(fields) do
    if value ~= "" or name == "password" then
      line[#line + 1] = name .. "=" .. escaped(value)
    end
  end
  return table.concat(line, "\t") .. "\n"
end

-- A connection on which a question has been asked; nil and why there is none.
local function asked(line)
  local link = (unix.stream or unix)()
  link:settimeout(PATIENCE, "t")
  local done, why = link:connect(SOCKET)
  if done then
    done, why = link:send(line)
  end
  if not done then
    link:close()
    return nil, SOCKET .. ": " .. tostring(why)
  end
  return link
end

-- The next line of an answer: its first word, and the rest as it came; nil and why there is none.
local function answer(link)
  local line, why = link:receive("*l")
  if not line then
    return nil, SOCKET .. ": " .. (why == "timeout" and "no answer in time" or "broke off")
  end
  local word, rest = line:match("^(%u+)\t?(.*)$")
  if word == "LATER" then
    return nil, "mailmaps cannot say now: " .. unescaped(rest)
  end
  return word or "?", rest
end

-- The fields name=value of an answer, by name.
local function fields_of(rest)
  local fields = {}
  for name, value in rest:gmatch("([^\t=]+)=([^\t]*)") do
    fields[name] = unescaped(value)
  end
  return fields
end

-- Ask one question that has one line for an answer.
local function ask(kind, request, password)
  local link, why = asked(question(kind, request, password))
  if not link then
    return nil, why
  end
  local word, rest = answer(link)
  link:close()
  return word, rest
end

-- Why neither yes nor no was said; `rest` has it when there is no word at all.
local function trouble(word, rest)
  return word and "mailmaps gave an answer that is none" or rest
end

-- passdb: is this the password? The userdb fields come along, for `userdb prefetch`.
function auth_password_verify(request, password)
  local word, rest = ask("LOGIN", request, password)
  if word == "NO" then
    return dovecot.auth.PASSDB_RESULT_PASSWORD_MISMATCH, "rejected"
  end
  local fields = word == "OK" and fields_of(rest) or {}
  if not fields.user then
    return dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE, trouble(word, rest)
  end
  local reply = {}
  for name, value in pairs(fields) do
    reply[name == "user" and name or "userdb_" .. name] = value
  end
  return dovecot.auth.PASSDB_RESULT_OK, reply
end

-- passdb without a password (`doveadm auth lookup`, CRAM-MD5 and its like): that is for who stores passwords.
function auth_passdb_lookup()
  return dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE, "mailmaps gives nobody a stored password"
end

-- userdb: who is this, and where is his mail?
function auth_userdb_lookup(request)
  local word, rest = ask("LOOKUP", request)
  if word == "UNKNOWN" then
    return dovecot.auth.USERDB_RESULT_USER_UNKNOWN, "unknown"
  end
  local fields = word == "OK" and fields_of(rest) or {}
  if not fields.user then
    return dovecot.auth.USERDB_RESULT_INTERNAL_FAILURE, trouble(word, rest)
  end
  return dovecot.auth.USERDB_RESULT_OK, fields
end

-- Every user, for `doveadm user '*'`. What is raised here is Dovecot's "failed"; part of a list is no list.
function auth_userdb_iterate()
  local link, why = asked("LIST\tservice=doveadm\tdovecot=" .. DOVECOT .. "\n")
  if not link then
    error(why, 0)
  end
  local users = {}
  local word, rest = answer(link)
  while word == "USER" do
    users[#users + 1] = unescaped(rest)
    word, rest = answer(link)
  end
  link:close()
  if word ~= "OK" then
    error(trouble(word, rest), 0)
  end
  return users
end
