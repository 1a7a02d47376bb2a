"""The mailbox folders that Postfix's virtual(8) delivers into: made beforehand, checked, put right."""
