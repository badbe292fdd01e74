"""What an answer says and whether two say the same, from characters to a verdict; `envs.grading` is the door.

extraction   the part of a response that is its answer
characters   one spelling for what Unicode, LaTeX and Markdown write in many ways
words        numbers, scales and doubts in English words
units        what a quantity counts or measures
expressions  mathematics as a tree, from a grammar that refuses what it does not know
reading      the kinds of answers: quantity, equation, set of reals, tuple, set, list, text
comparison   when two answers are equal
evaluation   values of trees that are no fractions, from worker processes with hard limits
references   right answers, several acceptable ones included
"""
