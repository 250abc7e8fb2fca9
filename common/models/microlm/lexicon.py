"""The words that MicroLM's tokenizer knows whole: all of the text world, of the prompts, and common English."""

import re
from collections.abc import Iterable

from common.data.text_world import names, relations
from common.data.text_world.questions import UNKNOWN
from common.data.text_world.world import EPITHETS

_WORD = re.compile(r"[^\W\d_]+|_", re.UNICODE)

# Common words beside those of the templates, so that the prompts of papers to come are not spelled byte by byte.
_COMMON = """
a about above access according account across act action active actor actually add advice after again against age
agent ago agree aim all allow almost alone along already also although always am among an and animal another answer
any anyone anything appear apple are area argument around article as ask asked assistant at attribute available away
back bad based be became because become been before began begin behind being belief believe belong below best better
between big book both bought bring brother budget build but buy by call called came can cannot card care carry case
category cause centre certain chain chance change check child choice choose chunk city claim class clean clear close
code cold come comment common company compare complete concept condition confirm conflict consider contain content
context continue contradict conversation copy core correct could count country create critique current customer cut
daily data date day days dead deal dear decide decision deep delete describe detail did difference different difficult
direct do document does dog done door doubt down draft draw drink drop due during each early easy eat edit effect
either element else email empty end enough entity episode episodic error even evening event events ever every everyone
everything evidence exact example expert explain extract fact facts false family far fast father favourite feature
feel few field file fill filter final find finish first fit five fix flight follow following food for forget form
found four free friend friends from front full function future game gave general get girl give given go goal gold gone
good got group grow guess had half hand happen hard has have he head hear help helpful her here high him his history
hold home hope hour house how however human hundred i idea if important in include incorrect index information input
insert inside instead instruction into invalid irrelevant is issue it item its job join judge just keep key kind knew
know knowledge known label language large last late later latest lead learn least leave left less let letter level
life like likely line link list listen little live local location long look lost love low made main make man many map
mark market match may me mean meaning meet member memories memory mention message middle might mind minute miss
missing model moment money month more morning most mother mountain move much music must my name near need needed never
new news next night no nobody none nor not note notes nothing notice now number object observation of off offer office
often old on once one only open opinion option or order other others our out output outside over own page paper parent
part partner parts pass passage passages past pay people perhaps person personal phone picture piece place plan play
please point policy possible prefer preference present price problem process product profile provide purchase put
quality query question questions quick quiet quite quote rank rate rather read reader ready real reason recall receive
recent record refer refine reflect rejected related relation relevant remember remove repair repeat replace reply
report request require response result results return review revise reward right role round rule run said same sample
save saw say school score search second section see seem seen select self sell semantic send sentence sentences
sequence session set seven several shall she shop short should show side similar simple since single sister site
situation six size skill skip sleep slow small so some somebody someone something sometimes song soon sorry source
speak special spend stage start state statement stay step still stop store story strategy street strong student study
subject such sufficient summary support supported supports sure system table take talk target task teach team tell ten
term test text than thank thanks that the their them then there these they thing think this those though thought
thoughts thousand three through time times title to today together told tomorrow too took tool tools top topic topics
total toward town trace track train travel tree trip true try turn two type under understand unit unknown unless
unsupported until up update updated upon us use used useful useless user using valid value verify very view visit wait
walk want warm was watch water way we week weeks well went were what when where whether which while who whole whom
whose why wife will win wish with within without woman word words work works world worse worst would write writer
wrong yard year years yes yesterday yet you young your Answer Answers Actually After Also Always And Answering Are As
Ask Assistant At Because Before But By Call Can Check Choose Chunk Combine Compare Context Copy Correct Count Current
Decide Did Do Document Does Done Draft Each Entities Every Evidence Extract Fact Facts False Final Find First Fix
Follow For Forget From Give Given Goal Has Have He Hello Here His How However I If In Input Insert Instruction
Instructions Is It Judge Keep Know Label Last Later List Look Make Memory Merge Mr Mrs My New Next No None Not Note
Notes Now Observation Of On Once Only Or Order Original Other Our Output Passage Passages Plan Please Previous Query
Question Questions Read Reason Refine Remember Remove Repair Repeat Replace Reply Report Request Response Result
Results Review Reviewer Revise Rewrite Rule Say Search Select Sentence Sentences Session She Show Since So Some State
Step Store Sufficient Summarise Summary Tell Text Thanks That The Then There These They Think This Thought Title To
Today Tool Tools Topic Topics Turn True Unknown Update Use User Value Was We Were What When Where Which While Who Whom
Why Will With Word Write Wrong Yes You Your answers challenger chunks citation cite compressed confidence core_memory
episodic_memory semantic_memory memory_insert memory_update memory_delete memory_id memory_type new_content tool_call
tool_response arguments id info q ctx doc docs k
"""
COMMON = tuple(_COMMON.split())


def words_of(*texts: str | Iterable[str]) -> set[str]:
    """Words of texts and of collections of texts, template fields left out."""
    found: set[str] = set()
    for text in texts:
        for one in [text] if isinstance(text, str) else text:
            found.update(_WORD.findall(re.sub(r"\{\w*\}", " ", one)))
    return found


def lexicon(*more: str | Iterable[str]) -> list[str]:
    """All whole words, sorted.

    Args:
        more: texts or collections of texts whose words are added: the prompts of the skills.
    """
    templates = [
        text
        for r in relations.RELATIONS.values()
        for text in (*r.statements, *r.questions, *r.phrases, *r.changes, *r.who, r.key)
    ]
    words = words_of(
        templates, relations.FILLERS, EPITHETS, COMMON, UNKNOWN, *relations.CLOSED.values(), *more
    )  # fmt: skip
    words |= {word.capitalize() for word in words_of(*relations.CLOSED.values())}
    words |= {"<", ">", "</", "[", "]", "|", ";", ":", ",", ".", "?", "!", "(", ")", "{", "}", '"', "=", "-", "/", "+"}
    words |= {str(digit) for digit in range(10)}
    return sorted(words | set(names.OPENINGS))


def name_parts() -> list[str]:
    """Middles and endings of names: pieces inside a word."""
    return sorted({*names.MIDDLES, *(ending for endings in names.ENDINGS.values() for ending in endings)})
