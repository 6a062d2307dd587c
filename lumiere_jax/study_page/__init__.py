"""The user study as a web page: made from folders of videos, served or exported, and evaluated.

A study is a folder: `study.json` says all that is fixed before the first rater comes, `videos/`
holds what is shown under names that do not tell the method, `answers.sqlite` the answers.
"""
