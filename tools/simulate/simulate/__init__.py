"""Whether the statistics hold: experiments whose truth is known, judged by the product's own functions."""
