"""The manual pages, from the commands, the settings and a few texts: `python -m mailmaps.manual DIRECTORY`"""
