"""Titles and tags of the embedded catalogue, in Chinese, in English, and mixed, with all the noise of a marketplace."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence

import numpy as np

# Synonyms by part and value: English ones, then Chinese ones, each separated by a bar. Some are shared by several
# values (bag and backpack, all stripes), as sellers do: a word narrows the choice, it seldom settles it.
SYNONYMS: dict[str, dict[str, tuple[str, str]]] = {
    "silhouette": {
        "bag": ("handbag|tote|purse|bag", "手提包|手袋|女包|包包"),
        "shoe": ("sneaker|shoe|trainers|footwear", "运动鞋|球鞋|休闲鞋|鞋子"),
        "bottle": ("bottle|flask|tumbler|drinkware", "水瓶|水壶|杯子|瓶子"),
        "mug": ("mug|cup|coffee cup|drinkware", "马克杯|咖啡杯|水杯|杯子"),
        "shirt": ("t-shirt|tee|top|apparel", "T恤|短袖|上衣|女装"),
        "lamp": ("lamp|table lamp|night light|home decor", "台灯|灯具|床头灯|家居"),
        "cap": ("cap|baseball cap|hat|headwear", "棒球帽|帽子|鸭舌帽|遮阳帽"),
        "backpack": ("backpack|rucksack|schoolbag|bag", "双肩包|书包|背包|包包"),
        "watch": ("watch|wristwatch|timepiece|accessory", "手表|腕表|石英表|配饰"),
        "chair": ("chair|seat|dining chair|home decor", "椅子|餐椅|靠背椅|家居"),
        "teapot": ("teapot|kettle|tea pot|kitchenware", "茶壶|水壶|茶具|厨具"),
        "dress": ("dress|gown|frock|apparel", "连衣裙|裙子|长裙|女装"),
    },
    "pattern": {
        "plain": ("plain|solid|minimalist", "纯色|素色|简约"),
        "striped": ("striped|vertical stripe|stripes", "条纹|竖条纹|竖纹"),
        "dotted": ("polka dot|dotted|spotted", "波点|圆点|点点"),
        "checked": ("checked|plaid|checkerboard", "格子|棋盘格|格纹"),
        "hooped": ("hooped|horizontal stripe|stripes", "条纹|横条纹|横纹"),
        "zigzag": ("zigzag|chevron|geometric", "波浪纹|折线|几何"),
        "camo": ("camo|camouflage|military", "迷彩|军绿|工装"),
        "floral": ("floral|blossom|flowery", "碎花|印花|花朵"),
    },
    "palette": {
        "red": ("red|scarlet|crimson", "红色|大红|酒红"),
        "blue": ("blue|navy|cobalt", "蓝色|藏青|宝蓝"),
        "green": ("green|emerald|olive", "绿色|墨绿|军绿"),
        "black": ("black|jet|dark", "黑色|曜石黑|深色"),
        "white": ("white|ivory|light", "白色|米白|浅色"),
        "pink": ("pink|rose|blush", "粉色|樱花粉|玫红"),
        "yellow": ("yellow|lemon|mustard", "黄色|柠檬黄|姜黄"),
        "brown": ("brown|chocolate|tan", "棕色|咖啡色|驼色"),
        "purple": ("purple|violet|lavender", "紫色|薰衣草|紫罗兰"),
        "orange": ("orange|tangerine|coral", "橙色|橘色|珊瑚"),
        "teal": ("teal|turquoise|cyan", "青色|湖蓝|孔雀蓝"),
        "grey": ("grey|gray|charcoal", "灰色|烟灰|炭灰"),
    },
    "emblem": {
        "star": ("star|starry|pentagram", "星星|五角星|星空"),
        "heart": ("heart|love|sweetheart", "爱心|心形|桃心"),
        "moon": ("moon|crescent|lunar", "月亮|弯月|星空"),
        "anchor": ("anchor|nautical|sailor", "船锚|海军|水手"),
        "leaf": ("leaf|foliage|botanical", "叶子|树叶|植物"),
        "bolt": ("lightning|bolt|thunder", "闪电|雷电|霹雳"),
        "crown": ("crown|royal|queen", "皇冠|王冠|女王"),
        "cat": ("cat|kitty|kitten", "猫咪|小猫|喵星人"),
        "fish": ("fish|goldfish|ocean", "小鱼|金鱼|海洋"),
        "flower": ("flower|blossom|daisy", "花朵|雏菊|小花"),
        "key": ("key|vintage key|locksmith", "钥匙|复古钥匙|锁匙"),
        "tree": ("tree|pine|forest", "松树|森林|植物"),
    },
    "ink": {
        "black": ("black print|ink|dark logo", "黑标|墨色|深色"),
        "red": ("red print|red logo", "红标|朱红"),
        "blue": ("blue print|blue logo", "蓝标|靛蓝"),
        "green": ("green print|green logo", "绿标|翠绿"),
        "purple": ("purple print|purple logo", "紫标|紫晶"),
        "orange": ("orange print|orange logo", "橙标|橘红"),
        "gold": ("gold print|gilded", "金标|烫金"),
        "teal": ("teal print|teal logo", "青标|碧色"),
    },
    "trim": {
        "matching": ("matching trim|tonal", "同色|配套"),
        "red": ("red trim|contrast trim", "红边|撞色"),
        "white": ("white trim|contrast trim", "白边|撞色"),
        "green": ("green trim|contrast trim", "绿边|撞色"),
        "pink": ("pink trim|contrast trim", "粉边|撞色"),
        "yellow": ("yellow trim|contrast trim", "黄边|撞色"),
        "teal": ("teal trim|contrast trim", "青边|撞色"),
    },
    "badge": {
        "round": ("round badge|badge", "圆标|徽章"),
        "square": ("square badge|badge", "方标|徽章"),
        "diamond": ("diamond badge|badge", "菱形标|徽章"),
    },
    "place": {
        "middle": ("centered|front", "居中|正面"),
        "left": ("left side|offset", "左侧|偏左"),
        "right": ("right side|offset", "右侧|偏右"),
        "low": ("low print|hem", "下摆|底部"),
    },
}
MENTIONED = {"silhouette": 0.9, "pattern": 0.7, "palette": 0.75, "emblem": 0.7}
"""How often a title names a part; the finer ones (ink, trim, ...) less: `SELDOM`."""
SELDOM = 0.35
TAGGED = 0.4
"""How often a part is among the tags."""

BRANDS = (
    "Norvik|Lumora|Kestrel & Co|ATELIER 9|BlueFinch|Miyako|Urban Nest|Zephyr|Oakline|Tamarind",
    "森野|花间集|优尚|北岸|木槿|云朵家|小鹿家|蓝鲸|墨言|星河旗舰店",
)
FILLER = (
    "new|2024|free shipping|hot sale|gift|high quality|fashion|for women|for men|kids|limited edition|SALE 50% off|"
    "✨ trending|in stock|🔥 best seller|casual|&amp; more|www.example.com/shop|2 pcs|brand new",
    "新款|2024|包邮|正品|特价|百搭|网红|送礼|时尚|夏季|ins风|礼物|【现货】|🔥爆款|学生|高级感|ＮＥＷ|限时折扣|"
    "潮流|&nbsp;热卖",
)
ENGLISH, CHINESE, MIXED = 0, 1, 2
LANGUAGES = (0.35, 0.8)
"""Of 1: English titles end at the first, Chinese ones at the second, the rest is mixed."""


def describe(
    parts: Mapping[str, str], others: Mapping[str, Sequence[str]], noise: float, random: np.random.Generator
) -> tuple[str | None, list[str] | None]:
    """Title and tags a seller might give a product; either may be missing, not both unless ``noise`` ate them.

    ``parts``: value of each part, by the names of `SYNONYMS`. ``others``: values of each part in this catalogue, for
    wrong words. ``noise``: share of the part names that is dropped, replaced by filler or by another product's word.
    """
    language = bisect(LANGUAGES, random.random())
    named = [part for part in parts if random.random() < MENTIONED.get(part, SELDOM)]
    words = _noisy(parts, others, named, noise, language, random)
    tagged = [part for part in parts if random.random() < TAGGED]
    tags = _noisy(parts, others, tagged, noise, int(random.integers(2)), random)
    tags += [_pick(FILLER, language, random) for _ in range(random.integers(0, 3))]
    missing = random.random()
    title = None if missing < 0.05 else _title(words, language, random)
    return title, (None if missing > 0.85 else [tags[place] for place in random.permutation(len(tags))])


def _noisy(
    parts: Mapping[str, str],
    others: Mapping[str, Sequence[str]],
    named: Sequence[str],
    noise: float,
    language: int,
    random: np.random.Generator,
) -> list[str]:
    words = []
    for part in named:
        value, fate = parts[part], random.random() / noise if noise else 1.0
        if fate < 1 / 3:
            continue  # dropped
        if fate < 2 / 3:
            words.append(_pick(FILLER, language, random))
            continue
        if fate < 1:
            value = others[part][int(random.integers(len(others[part])))]
        words.append(_pick(SYNONYMS[part][value], language, random))
    return words


def _pick(choices: tuple[str, str], language: int, random: np.random.Generator) -> str:
    """One of the English or Chinese choices; a mixed title draws the language of each word."""
    offered = choices[language if language != MIXED else int(random.integers(2))].split("|")
    return offered[int(random.integers(len(offered)))]


def _title(words: list[str], language: int, random: np.random.Generator) -> str:
    """Brand, part names in any order, filler around them: run together in Chinese, spaced in English."""
    words = [words[place] for place in random.permutation(len(words))]
    brand = [_pick(BRANDS, language, random)] if random.random() < 0.75 else []
    filler = [_pick(FILLER, language, random) for _ in range(random.integers(1, 5))]
    cut = random.integers(len(filler) + 1)
    code = [f"{'ABKX'[random.integers(4)]}{random.integers(100, 9999)}"] if random.random() < 0.25 else []
    everything = brand + filler[:cut] + words + filler[cut:] + code
    if language == CHINESE:
        return "".join(everything)
    text = " ".join(everything)
    return text.title() if language == ENGLISH and random.random() < 0.5 else text
