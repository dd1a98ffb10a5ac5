"""The schema's history, oldest first; `db.queries.REVISIONS` lists it for those who only read."""
