"""What people type to a chatbot that no encyclopedia answers; written for benchmarks/fusion.py."""

from __future__ import annotations

SMALL_TALK = """
hello
hello, how are you?
hi there
hey
good morning
good evening, my friend
how are you doing today?
what's up?
thanks!
thank you very much
thanks, that was helpful
you are welcome
ok
okay, got it
yes
no
yes please
no thanks
please continue
go on
tell me more
can you explain that again?
what do you mean?
I don't understand
that's funny
haha
lol
I'm bored
tell me a joke
sing me a song
who are you?
what is your name?
are you a robot?
are you human?
do you have feelings?
what can you do?
can you help me?
I need some help
write a poem about my cat
write me a short email to my boss
translate this into French: I am tired
summarize our conversation
what did I just say?
what was my first question?
let's talk about something else
I love you
I am sad today
my dog died yesterday
what should I eat tonight?
what should I wear tomorrow?
what time is it?
what day is it today?
how is the weather today?
will it rain tomorrow?
how old are you?
where do you live?
do you like me?
goodbye
bye
see you later
have a nice day
good night
nice to meet you
sorry
never mind
stop
can you repeat that?
fix the bug in my code
2 + 2
what is 17 times 23?
count to ten
give me five ideas for a birthday party
I want to learn to play the guitar, where do I start?
asdf qwer
test
why?
how?
really?
are you sure?
I think you are wrong
""".strip().splitlines()
