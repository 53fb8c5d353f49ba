"""Pure: what should be, what is, and the actions between them. Standard library, pydantic and fairlead only."""
