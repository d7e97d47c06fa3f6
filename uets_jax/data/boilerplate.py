"""Boilerplate: the text that is the same on every page, with filled-in slots.

All of it is made here: wording and names are this file's own, addresses are those
reserved for examples.
"""

import re
from collections.abc import Mapping

from uets_jax.data.draws import Draws

SLOTS: dict[str, tuple[str, ...]] = {
    "part": ("Nor", "Vel", "Tam", "Bri", "Sol", "Kes", "Lum", "Har", "Ost", "Mir"),
    "tail": ("dan", "wick", "ora", "tek", "by", "mont", "ell", "ix", "field", "ura"),
    "form": ("Limited", "Group", "Partners", "Company", "Foundation", "Labs"),
    "first": ("Anna", "Boris", "Chidi", "Dana", "Emil", "Farah", "Gita", "Hugo"),
    "street": ("Mill Lane", "Harbour Road", "North Street", "Station Square"),
    "month": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    "thing": (
        *("garden chair", "desk lamp", "water filter", "phone case", "rain jacket"),
        *("coffee grinder", "picture frame", "bicycle pump", "travel bag", "notebook"),
    ),
    "topic": (
        *("Products", "Services", "News", "Careers", "Support", "Pricing", "Blog"),
        *("Press", "Investors", "Downloads", "Community", "Events", "Stores", "Gifts"),
    ),
    "partner": ("analytics", "advertising", "social media", "payment", "mapping"),
    "status": ("in stock", "sold out", "available in 2 days", "on order"),
    "code": ("404", "403", "410", "500", "503"),
    "country": ("Northland", "Eastmark", "Southvale", "Westreach"),
}

BLOCKS: tuple[str, ...] = (
    "This site uses cookies. We and our {0-99} {partner} partners store information on "
    "your device to run this site, to measure visits and to show offers that suit you. "
    "You can change your choice at any time under Cookie Settings.\n"
    "[ Accept all ]  [ Only what is needed ]  [ Settings ]",
    "{site} values your privacy. Strictly necessary cookies: always active. "
    "Performance cookies ({0-40}): off. {partner} cookies ({0-40}): off. By clicking "
    "Accept you agree to the use of all cookies as described in our Cookie Notice of "
    "{0-28} {month} 20{10-25}.\nAccept | Reject | Manage preferences",
    "Skip to main content\nHome | {topic} | {topic} | {topic} | About us | Contact\n"
    "Search this site\nLog in | Register | Basket ({0-9})\n"
    "You are here: Home > {topic} > {topic} > Page {1-40}",
    "Menu\n- {topic}\n- {topic}\n- {topic}\n- {topic}\n- {topic}\nLanguage: English\n"
    "Share this page: Mail, Print, Copy link\nBack to top",
    "Copyright (c) 20{10-25} {site} {form}\n\nThis file is from {site}. You may use, "
    "copy and change it under the terms stated in the file LICENCE that comes with it. "
    "It is provided as it is, without warranty of any kind. In no event shall the "
    "authors be liable for any damages that arise from its use.",
    "/*\n * {site} module {thing}\n * (c) 20{10-25} {form}. All rights reserved.\n"
    " * Do not remove this notice. Version {0-9}.{0-20}.{0-9}, built on {day}.\n"
    " * Generated file: changes made by hand will be lost.\n */",
    "Contact form\nFields marked with * are required.\nFirst name*: ________\n"
    "Last name*: ________\nE-mail*: ________\nOrder number: {100000-999999}\n"
    "Your message*: ________\n[ ] I have read the privacy notice of {site}.\n[ Send ]",
    "Application No. {1000-9999}/{month}\nSurname: ____ First name: {first}\n"
    "Street: {1-200} {street}\nPostcode: {10000-99999} Country: {country}\n"
    "Date of birth: {1-28}.{1-12}.19{40-99}\n[ ] new  [ ] renewal  [ ] change\n"
    "Place, date: ________ Signature: ________\nFor office use. Do not write below.",
    "Dear {first},\n\nThank you for your order {100000-999999} of {1-28} {month}. "
    "{1-5} x {thing}: {1-90}.{10-99}. Delivery: {0-9}.95. It will be sent to {1-200} "
    "{street} within {2-14} working days. You can follow it under My Account.\n\n"
    "Kind regards\nYour {site} team\nPlease do not reply to this message.",
    "You receive this message because {mail} is subscribed to the {site} newsletter. "
    "To unsubscribe, follow the link below or write to us. {site} {form}, {1-200} "
    "{street}, {country}. Unsubscribe | View in browser | Forward to a friend",
    "Opening hours of {site}, {street}\n{day}: {7-10}.00 to {16-20}.00\n"
    "{day}: {7-10}.30 to {16-20}.30\n{day}: closed\nTelephone: 555 {1000-9999}\n"
    "Fax: 555 {1000-9999}\nE-mail: {mail}",
    "{thing} - {status}\nItem {10000-99999} | Rating {1-5} of 5 ({0-900} reviews)\n"
    "Was {50-90}.00, now {10-49}.99, including tax, plus delivery\n"
    "[ Add to basket ]  [ Add to wish list ]  [ Compare ]\n"
    "Customers who bought this also bought: {thing}, {thing}, {thing}",
    "Error {code}\nThe page you asked for can't be shown. It may have been moved or "
    "removed. Check the address, go back to the start page of {site}, or try again in "
    "{1-30} minutes. Reference: {100000-999999}",
    "Terms of use. By visiting {site} you accept these terms. {site} {form} may change "
    "them at any time; the version of {1-28} {month} 20{10-25} applies. Links to other "
    "sites are given for convenience; we do not answer for their content. The law "
    "of {country} applies, and its courts have jurisdiction.",
    "Your account at {site}: a new password was asked for on {day} at {0-23}:{10-59}. "
    "If it was you, enter the code {100000-999999} within {5-60} minutes. If not, no "
    "action is needed and your password stays as it is.",
    "(c) 20{10-25} {site} {form} | Imprint | Privacy | Terms | Accessibility | Map\n"
    "Follow us | Newsletter | {topic} | {topic}\nPrices in local currency. Errors and "
    "omissions excepted. Last updated: {day}, {1-28} {month} 20{10-25}",
)

_SLOT = re.compile(r"\{(?:(\d+)-(\d+)|(\w+))\}")


def boilerplate(size: int, draws: Draws) -> str:
    """About `size` bytes (ASCII): blocks of one site, cut between two lines or words.

    Never more than `size`; at most one line less.
    """
    name = draws.pick(SLOTS["part"]) + draws.pick(SLOTS["tail"])
    site = {"site": name, "mail": f"info@{name.lower()}.example"}
    site |= {slot: draws.pick(SLOTS[slot]) for slot in ("form", "country", "street")}
    parts, length = [], 0
    while length < size + 2:
        block = _filled(draws.pick(BLOCKS), site, draws)
        parts.append(block)
        length += len(block) + 2
    return _cut("\n\n".join(parts), size)


def _cut(text: str, size: int) -> str:
    """The first `size` characters, or fewer: what follows begins with white space."""
    stop = max(text.rfind(space, 0, size + 1) for space in (" ", "\n"))
    return text[: stop if stop > 0 else size].rstrip()


def _filled(block: str, site: Mapping[str, str], draws: Draws) -> str:
    def value(slot: re.Match[str]) -> str:
        low, high, name = slot.groups()
        if name:
            return site.get(name) or draws.pick(SLOTS[name])
        return str(int(low) + draws.below(int(high) - int(low) + 1))

    return _SLOT.sub(value, block)
