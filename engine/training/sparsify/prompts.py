"""What the model is asked, to have texts of its own: some hundred questions of many kinds.

Each form is asked with each of its subjects. The forms are those that people use, the subjects are
spread over the fields they ask about, so that the answers differ in manner, length and words.
"""

from __future__ import annotations

from collections.abc import Iterator

_FORMS: dict[str, str] = {
    "What is {}?": "gravity|an algorithm|democracy|a vitamin|the stock market|jazz|a glacier|"
    "DNA|an enzyme|the internet|a comet|inflation|ethics|the Silk Road|electricity",
    "Explain {} in simple words.": "how a refrigerator works|machine learning|"
    "how tides come about|compound interest|the immune system|nuclear fusion|how GPS works|"
    "evolution|supply and demand|how a battery stores energy|what an atom is|encryption",
    "Why {}?": "is the sky blue|do leaves change colour in autumn|do we dream|is the sea salty|"
    "do cats purr|did the dinosaurs die out|does ice float|do we yawn|"
    "is exercise good for the heart|do prices rise|do birds migrate|is sleep important",
    "How do I {}?": "learn a new language|tie a tie|grow tomatoes on a balcony|"
    "clean a cast iron pan|prepare for a job interview|save money every month|"
    "change a bicycle tyre|stop procrastinating|write a good CV|back up my computer|"
    "make friends in a new city|cook rice|remove a coffee stain|start running|"
    "keep houseplants alive",
    "Give me five tips for {}.": "public speaking|travelling on a small budget|writing clearly|"
    "better photographs|healthy breakfasts|working from home|learning to draw|a calm evening|"
    "teaching children to read|using less plastic",
    "Write a short story about {}.": "a robot who paints|two brothers and a boat|a lost letter|"
    "a village without clocks|a dog that can count|the last train of the night|"
    "a baker and a king|a girl who talks to the wind|an old map|a detective in the rain",
    "Write a poem about {}.": "the sea at night|an empty chair|spring|a grandmother's kitchen|"
    "rain|the moon|a long road|first snow",
    "Write a Python function that {}.": "checks whether a number is prime|reverses a list|"
    "counts the vowels in a string|finds the largest value in a dictionary|"
    "merges two sorted lists|converts Celsius to Fahrenheit|removes duplicates from a list|"
    "reads a CSV file|computes the average of numbers|checks whether a word is a palindrome",
    "What is the difference between {}?": "a virus and a bacterium|a list and a tuple in Python|"
    "mass and weight|a novel and a novella|fission and fusion|a crocodile and an alligator|"
    "HTTP and HTTPS|climbing and hiking|a loan and a mortgage|RAM and a hard disk",
    "Who was {}, and what is this person known for?": "Ada Lovelace|Isaac Newton|Cleopatra|"
    "Nelson Mandela|Leonardo da Vinci|Florence Nightingale|Charles Darwin|Confucius|Frida Kahlo|"
    "Alan Turing|Mozart|Amelia Earhart",
    "Tell me about {}.": "the Amazon rainforest|Japan|the Great Wall of China|honey bees|Venice|"
    "the history of chess|Mars|the Olympic Games|whales|ancient Egypt|the Sahara|coffee|"
    "the French Revolution|volcanoes|the human brain",
    "Write an e-mail {}.": "to thank a colleague for help|to a landlord about a broken heater|"
    "that invites friends to a birthday|to cancel a subscription|that asks a teacher for advice|"
    "to apologise for being late|to a customer whose parcel is delayed",
    "Summarise {} in three sentences.": "the story of Cinderella|the water cycle|"
    "the First World War|what photosynthesis does|the idea of the theory of relativity|"
    "the plot of Hamlet|the life of a butterfly|how a bill becomes law",
    "List {}.": "ten animals that live in the sea|the planets of the solar system|seven colours|"
    "six things to take to the beach|five famous painters|the steps to brew tea|"
    "eight European capitals|four renewable sources of energy|five kinds of cheese|"
    "some classic science fiction novels|the parts of a bicycle",
    "Solve it and show the steps: {}": "5x - 7 = 18|"
    "a train goes 120 km in 1.5 hours, how fast is it?|what is 15 % of 240?|"
    "what is the area of a circle with radius 3?|2(x + 3) = 16|"
    "Anna has 12 apples and gives away a third, how many are left?|what is 17 times 23?|"
    "the sum of two numbers is 20 and their difference is 4",
    "Translate into {}": "French: Where is the station?|Spanish: I would like a glass of water.|"
    "German: The weather is nice today.|Italian: Thank you for your help.|"
    "French: My brother lives in London.|Spanish: The book is on the table.",
    "What are the advantages and disadvantages of {}?": "electric cars|living in a big city|"
    "social media|nuclear power|working at night|renting a home|online courses|"
    "a vegetarian diet|owning a dog|remote work",
    "Give me a recipe for {}.": "pancakes|a vegetable soup|a simple salad|lentil curry|"
    "banana bread|tomato sauce|scrambled eggs|chocolate biscuits",
    "Describe {}.": "a market in the morning|your ideal library|a thunderstorm|"
    "a medieval castle|the taste of a lemon|a busy airport|the life of a lighthouse keeper|"
    "a forest in winter",
    "Compare {}.": "tea and coffee|summer and winter|books and films|trains and planes|"
    "Python and Java|the sun and the moon|cats and birds as pets|gold and silver",
    "I feel {}. What can I do?": "tired all the time|nervous before an exam|bored at work|"
    "lonely|stressed by my e-mails|sad about a friend who moved away|unsure which job to take",
    "Plan {}.": "a weekend in Paris|a birthday party for a child|a week of dinners for two|"
    "a study schedule for an exam|a day without a phone|a small vegetable garden|a camping trip",
    "Act as {} and introduce yourself.": "a tour guide in Rome|a ship's captain|"
    "a physics teacher|a librarian|a chef|a talking tree",
    "Correct the mistakes in this sentence: {}": "She go to school every days.|"
    "Their is to many cars on the road.|I has never saw that film.|He dont like no vegetables.|"
    "The childs was playing in they garden.",
    "Write a dialogue between {}.": "a customer and a shopkeeper|two astronauts|"
    "a cat and a mouse|a doctor and a patient|a student and a computer",
    "What happened in {}?": "1492|1789|1914|1945|1989|2001",
    "Write {}.": "a product description for a wooden chair|a slogan for a bakery|"
    "a short speech for a wedding|a limerick|a news report about a lost parrot|"
    "a letter to my future self|three questions for an interview with a pilot|"
    "an SQL query that counts orders per customer|a regular expression for a date|a haiku|"
    "an HTML page with a heading and a list|a motivational message",
    "Is it true that {}?": "goldfish forget everything after three seconds|"
    "we use only ten percent of our brain|lightning never strikes twice|bats are blind|"
    "the Great Wall can be seen from space|sugar makes children restless",
    "How {}?": "far away is the moon|many bones does a human have|old is the Earth|"
    "deep is the ocean|fast does light travel|tall is Mount Everest|do bees make honey|"
    "does a plane fly|is glass made|does a search engine work|do vaccines protect us|"
    "was the moon formed",
    "{}": "Hello, who are you?|Tell me a joke.|What can you do for me?|Good morning!|"
    "Can you recommend a good book?|What should I cook tonight?|Tell me something interesting.|"
    "I need a name for my cat.|Help me to write a birthday card.|What is the meaning of life?|"
    "Which is better, to be early or to be late?|Thank you for your help.",
}  # fmt: skip


def prompts() -> list[str]:
    """All of them, forms and fields mixed, always in the same order."""
    groups = [[form.format(subject) for subject in subjects.split("|")]
              for form, subjects in _FORMS.items()]  # fmt: skip
    return list(_in_turn(groups))


def _in_turn(groups: list[list[str]]) -> Iterator[str]:
    """The first of each, the second of each … so that any beginning has something of all."""
    for at in range(max(map(len, groups))):
        yield from (group[at] for group in groups if at < len(group))
