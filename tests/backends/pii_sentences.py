"""Sentences made up for the tests, with the personal data in [[KIND text]]; no number belongs to anyone we know."""

import re

_MARK = re.compile(r"\[\[(\w+) (.*?)\]\]")

ENGLISH = """
you can write to [[EMAIL anna.lee@example.com]] any time
My address is [[EMAIL J.Smith+news@mail.example.co.uk]], thanks.
send it to [[EMAIL john dot smith at gmail dot com]] please
her email is [[EMAIL m a r y four two at example dot org]]
it's [[EMAIL info underscore sales at deep mind dot com]] all lower case
my email is [[EMAIL peter at yahoo dot co dot uk]] and i am at home
Call me on [[PHONE +1 (415) 555-2671]] after six.
our number is [[PHONE 415-555-2671]]
you can reach him at [[PHONE (212) 555-0187]] tomorrow
it is [[PHONE four one five five five five two six seven one]]
call [[PHONE one eight hundred five five five twenty three forty six]] now
dial [[PHONE double four two oh seven nine four six oh nine five eight]]
that was [[PHONE oh seven nine one one one two three four five six]] right
phone [[PHONE five five five oh one nine nine]] and ask for me
London is [[PHONE 020 7946 0958]] during the day
from abroad dial [[PHONE 0044 20 7946 0958]]
my mobile is [[PHONE 07911 123456]]
text me on [[PHONE plus four nine one five one two three four five six seven eight nine]]
My card is [[CARD 4111 1111 1111 1111]], it expires soon.
the card number is [[CARD four one one one one one one one one one one one one one one one]]
the card is [[CARD five five five five five five five five five five five five four four four four]] oh four twenty six
amex [[CARD 3782 822463 10005]]
[[CARD 5555-5555-5555-4444]] is what I read
pay to [[IBAN GB82 WEST 1234 5698 7654 32]] today
my account is [[IBAN DE89370400440532013000]].
my social security number is [[NATIONAL_ID 536-22-8726]]
social security [[NATIONAL_ID five three six two two eight seven two six]] thank you
SSN [[NATIONAL_ID 536 22 8726]]
my NI number is [[NATIONAL_ID AB 12 34 56 C]]
it's [[NATIONAL_ID a b one two three four five six c]] i think
the server is [[IP 192.168.12.40]] in the lab
log in to [[IP one nine two dot one six eight dot one dot seven]] first
the host [[IP 2001:db8::8a2e:370:7334]] is down
mail [[EMAIL bob@example.net]] or ring [[PHONE 206 555 0142]]
your order number is 4155552671
order four one five five five five two six seven one has shipped
The year 1984 came before 2024 and 2025.
in nineteen eighty four and twenty twenty four
I have 4111 1111 1111 1112 here
it says four one one one one one one one one one one one one one one two
one two three four five six seven eight nine ten
There were 1,234,567 people and 12.5 percent.
meet me at noon at the dot on the map
find us at example dot com
visit the shop at google dot com today
version 1.2.3.4 is out
Chapter 3.14.15 starts at 10:30:45.
on 2024-05-17 at 10:30 we met
tracking 1Z 999 12 345 678
the score was 21 15 21 19 21 12
ISBN 978-3-16-148410-0 is a book
one of the two boys at school had four dogs
it cost 12 34 56 a year
flight 4471 at gate 12 leaves 18 45
invoice 2024 0001 4471 is paid
GB82 WEST 1234 5698 7654 33 has a wrong check
we want 20 or 30 or 40 of those
oh one more thing double the price
she is at point five on a scale of one to ten
ten nine eight seven six five four three two one zero
zero zero zero zero zero zero zero zero zero zero
"""
CHINESE = """
我的电话是[[PHONE 13800138000]]
打[[PHONE 幺三八零零一三八零零零]]找我
手机号[[PHONE 一三九 一二三四 五六七八]]谢谢
客服电话[[PHONE 010-62770334]]
身份证号[[NATIONAL_ID 11010519491231002X]]
身份证是[[NATIONAL_ID 一一零一零五一九四九一二三一零零二 X]]
我的邮箱是[[EMAIL li.wei@example.com]]。
邮箱[[EMAIL wang 点 fang 艾特 example 点 com]]
卡号[[CARD 四一一一一一一一一一一一一一一一]]
卡号[[CARD 6222 0212 3456 7890 128]]没错
他的手机[[PHONE 一三五三个八一二三四五]]
订单号是13800138000
今年是二零二四年五月十七日
身份证号110105194912310021不对
一二三四五六七八九
三点一四一五九
一千二百三十四块五毛
"""
GERMAN = """
Meine Nummer ist [[PHONE 030 901820]].
ruf mich an unter [[PHONE +49 151 23456789]]
meine Steuer-ID lautet [[NATIONAL_ID 86 095 742 719]]
IBAN [[IBAN DE89 3704 0044 0532 0130 00]] bitte
Bestellnummer 030 901820 ist da
Am 01.02.2024 um 10 Uhr 30
Das kostet 1.234.567 Euro
Die Steuer-ID 86 095 742 718 ist falsch
"""


def read(lines, language):
    """Yields text, language and [(kind, start, end)] of each sentence."""
    for line in lines.strip().splitlines():
        text, expected, position = "", [], 0
        for match in _MARK.finditer(line):
            text += line[position : match.start()]
            expected.append((match[1], len(text), len(text) + len(match[2])))
            text += match[2]
            position = match.end()
        yield text + line[position:], language, expected


SENTENCES = [*read(ENGLISH, "en"), *read(CHINESE, "zh"), *read(GERMAN, "de")]
UNSEEN_ENGLISH = """
yeah so my cell is [[PHONE six one seven five five five oh one three four]] okay
you can get me at [[PHONE nine one seven, five five five, oh one eight six]]
Give us a call on [[PHONE 0161 496 0000]] between nine and five.
the toll free one is [[PHONE 1-800-555-0199]]
her number's [[PHONE three one two triple five zero one four two]]
try [[PHONE +44 7700 900123]] if that fails
i'm on [[PHONE 07700 900456]] most days
ask for him at [[PHONE 503.555.0117]].
our office in Paris is [[PHONE +33 1 99 00 12 34]]
[[PHONE two one two five five five one two one two]] that's the one
it's [[EMAIL k dot jones seven at hotmail dot com]]
email me [[EMAIL sam_92@mail.example.org]], will you
that would be [[EMAIL r o s a at example dash shop dot net]]
reach out to [[EMAIL support at big river foods dot com]]
contact [[EMAIL first.last+tag@sub.example.io]]!
visa ending, full number [[CARD four five three nine one four eight eight oh three four three six four six seven]]
I'll read it, [[CARD 6011 1111 1111 1117]], okay?
charge it to [[CARD 5105105105105100]]
my mastercard [[CARD fifty one oh five one oh five one oh five one oh five one hundred]]
transfer to [[IBAN FR14 2004 1010 0505 0001 3M02 606]]
it's [[IBAN n l nine one a b n a zero four one seven one six four three zero zero]]
the last four of my social are 8726
my social is [[NATIONAL_ID two one nine oh nine nine nine nine nine]]
national insurance [[NATIONAL_ID QQ123456C]]
national insurance number [[NATIONAL_ID JG 10 37 59 A]]
ping [[IP 10.0.0.254]] please
the camera is on [[IP ten dot zero dot zero dot twelve]]
the bill is 415 dollars and 55 cents
we sold 4155 units in 2671 stores
serial number 4539 1488 0343 6468
your confirmation code is eight eight two five one four four
he won 6 4 3 6 7 5
bus 38 stops at 5 15 and 5 45 and 6 15
pi is three point one four one five nine two six five
look at amazon dot com for that
in two thousand and eight there were seventy five of them
one oh one dalmatians
from nine to five monday to friday
"""
UNSEEN_CHINESE = """
我手机是[[PHONE 幺五零 幺二三四 五六七八]]
座机[[PHONE 零二一六二三四五六七八]]
打这个[[PHONE 400-820-8820]]
你加我微信[[PHONE 18612345678]]
发到[[EMAIL zhang88@example.cn]]就行
我买了一百二十三个苹果
房间号是八零二幺
快递单号七七八八九九零零一一二
一九四九年十月一日
"""
UNSEEN_GERMAN = """
Sie erreichen mich unter [[PHONE 0171 1234567]]
Fax [[PHONE 040/123456]]
schreib an [[EMAIL info@beispiel.de]]
Rechnung 2024-000123 vom 3.4.2024
"""
UNSEEN = [*read(UNSEEN_ENGLISH, "en"), *read(UNSEEN_CHINESE, "zh"), *read(UNSEEN_GERMAN, "de")]
