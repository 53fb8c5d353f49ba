"""Who was shown what: the signed experiment header, verified."""
