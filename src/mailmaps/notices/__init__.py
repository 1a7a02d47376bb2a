"""Mail to the postmaster: what is worth one, the text, the queue. The only package that names aiosmtplib."""
