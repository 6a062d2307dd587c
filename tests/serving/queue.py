"""Small steps that tests of the queue share."""

import sqlalchemy as sa

from lumiere_jax.serving import lost, tables


class Clock:
    """Seconds that only tests let pass."""

    now = 0.0

    def __call__(self):
        return self.now


def submit(store, key=None, files=None, max_queue=100, **options):
    return store.submit("text_to_video", options, files or {}, batch_key=key, max_queue=max_queue)


def lose(database):
    """Ends all leases, and puts back what had them."""
    with database.writing() as connection:
        connection.execute(sa.update(tables.jobs).values(lease_until=0.0))
    clock = Clock()
    expiry = lost.Expiry(database, 30, clock)
    for clock.now in (0.0, 3.0):
        expiry.put_back()


def count(database, table):
    with database.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table))
