"""The nightly report: log lines -> events -> tally -> text, HTML, a picture and JSON.

The rule it keeps: a log is what strangers made Postfix write. Nothing in it becomes markup, a control
character or a command; no key of theirs makes memory grow without bound; no line takes time that grows
faster than its length. What is not known (a file that is missing, a database that is away, too many keys)
is said, not guessed.
"""
