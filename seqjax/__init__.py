"""seqjax: the story of sequence models as runnable, measured code."""
