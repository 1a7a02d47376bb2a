"""PostgreSQL: connections, the rows of views, schema. The only package that names asyncpg."""
