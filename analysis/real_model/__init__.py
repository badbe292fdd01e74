"""What the papers say of language models, asked of one with pretrained weights: runs, statements, page.

    python -m analysis.real_model.runs runs/real-model --objectives grpo --seeds 0:5
    python -m analysis.real_model.collect runs/real-model
    python -m analysis.documents

All runs of a seed begin with the same weights and the same first evaluation, and each writes its updates down, so that
a statement about tokens is asked of every objective on the same tokens.
"""
