"""Speaking one dialect to a client and another to its upstream. Pure: no trio, no clock, no chance.

A request becomes a request, with a report of what was dropped and a *way back*: what must be known of it
to translate the answer. Of an upstream's frames a translator makes the client's; of a whole answer, a
whole one. What cannot be translated and must not be lost is refused before anybody is asked.

Modules without a prefix are for both ways, `chat_*` read what a Chat upstream says; `responses_*` are
for clients that speak Responses, `messages_*` for those that speak Messages. The upstream's dialect is
Chat in both. `ways` has what an adapter needs of it all.
"""
