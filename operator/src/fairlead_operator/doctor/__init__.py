"""``fairlead doctor``: looks at everything that Fairlead needs, says what is wrong, and how to mend it.

Each area is one file with one ``Check``: it gathers facts, and judges them without looking any further. Nothing is ever
changed: what is sent as a write is a dry run or an access review. A new area is a new file and a line in ``areas``.
"""
