"""The right passage comes first: eight documents, English and Chinese, over the embeddings of the demo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minicpm_core.index import Index, SentenceTransformerEmbedder, build_index
from minicpm_core.rag import RagSettings

DOCUMENTS = {
    "lease.txt": """Lease agreement for the flat at 27 Birch Lane

The lease begins on 1 April 2025 and runs for two years. The rent is 980 pounds a month and is paid on the first working
day. The deposit is two months' rent. It is returned within fourteen days after the keys are handed back.

The tenant may keep one cat, but no dogs. Smoking is not allowed inside the building. Repairs to the boiler are paid for
by the landlord, Mrs. Helen Ward. Either side may end the lease with three months' notice in writing.
""",
    "camera-manual.md": """# Orion X2 camera

## Battery
The battery lasts for about 340 pictures. A full charge takes three hours with the supplied charger. Do not charge it
below freezing point.

## Memory
The camera takes SD cards of up to 512 GB. Format a new card in the camera before its first use.

## Warranty
The warranty covers faults in material for thirty months. Water damage is not covered.

## Cleaning
Wipe the lens with a dry, soft cloth. Never use alcohol on the display.
""",
    "recipe.md": """# Lentil soup

Serves four. Rinse 250 g of red lentils. Fry two onions and three cloves of garlic in olive oil for five minutes.
Add the lentils, a litre of stock and a teaspoon of cumin. Simmer for twenty-five minutes, then blend until smooth.
Serve with lemon juice and fresh bread. The soup keeps in the refrigerator for three days and can be frozen.
""",
    "history.html": """<html><head><title>Harwick lighthouse</title></head><body><h1>Harwick lighthouse</h1>
<p>The lighthouse was designed by Thomas Adair and finished in 1847. Its tower is 41 metres high.</p>
<p>A storm destroyed the first lantern in 1862; the new one burned paraffin oil. The last keeper, Edith Moran, left in
1971, when the lamp was automated.</p><p>Today the tower houses a museum of navigation, open from May to October.</p>
</body></html>""",
    "租房合同.txt": """房屋租赁合同

出租人张伟将位于海淀区学院路十五号的房屋租给承租人李娜居住。租期自2025年3月1日起至2027年2月28日止，共两年。
每月租金为四千五百元，应在每月五日前支付。押金为两个月租金，退房后十日内退还。
承租人不得在屋内饲养大型犬。水费和电费由承租人承担，物业费由出租人承担。
任何一方提前解除合同，应提前三十天书面通知对方，并支付一个月租金作为违约金。
""",
    "扫地机说明书.md": """# 云雀扫地机器人说明书

## 充电
首次使用前请充满电，充电时间约为四小时。充满后可连续清扫一百二十分钟。

## 清洁
滤网每两周清洗一次，晾干后再装回。边刷每三个月更换一次。

## 保修
整机保修期为两年，电池保修期为一年。进水造成的损坏不在保修范围内。

## 故障
指示灯闪红色表示机器人被卡住，请把它移到平坦的地面后重新启动。
""",
    "菜谱.txt": """清蒸鲈鱼

准备一条约六百克的鲈鱼，洗净后在两面各划三刀。鱼身抹上盐和料酒，腌制十五分钟。
水烧开后放入蒸锅，大火蒸八分钟，关火后再焖两分钟。倒掉盘中的汁水，铺上葱丝和姜丝，淋上蒸鱼豉油。
最后把烧热的花生油浇在葱丝上即可。
""",
    "校史.txt": """青石中学校史

青石中学创办于1926年，创始人是教育家陈远山。学校最初只有三间教室和四十二名学生。
1958年，学校迁到江边的新校区。图书馆建成于1983年，藏书超过十二万册。
学校的校训是“勤学笃行”。每年十月的第二个周六是校庆日。
""",
}

QUESTIONS = [
    ("How much is the rent of the flat?", "980 pounds"),
    ("When do I get the deposit back?", "fourteen days"),
    ("Can I have a dog in the apartment?", "no dogs"),
    ("Who pays if the heating breaks down?", "boiler"),
    ("How long is the notice period for ending the lease?", "three months' notice"),
    ("How long does charging the camera take?", "three hours"),
    ("How many photos can I take with one battery?", "340 pictures"),
    ("What is the largest memory card the camera accepts?", "512 GB"),
    ("Is damage by water covered by the guarantee?", "Water damage"),
    ("What should I clean the lens with?", "soft cloth"),
    ("How much lentils do I need for the soup?", "250 g"),
    ("Can the soup be frozen?", "can be frozen"),
    ("Which spice goes into the lentil soup?", "cumin"),
    ("Who designed the lighthouse?", "Thomas Adair"),
    ("How tall is the tower?", "41 metres"),
    ("Who was the last lighthouse keeper?", "Edith Moran"),
    ("When is the museum open?", "May to October"),
    ("每个月的租金是多少？", "四千五百元"),
    ("押金什么时候退还？", "十日内退还"),
    ("可以养狗吗？", "大型犬"),
    ("物业费由谁承担？", "物业费由出租人"),
    ("提前解除合同要提前多少天通知？", "三十天"),
    ("扫地机器人充电需要多长时间？", "四小时"),
    ("滤网多久清洗一次？", "每两周"),
    ("电池的保修期是多久？", "电池保修期为一年"),
    ("指示灯闪红色是什么意思？", "被卡住"),
    ("鲈鱼要蒸几分钟？", "蒸八分钟"),
    ("鱼要腌制多长时间？", "腌制十五分钟"),
    ("青石中学是谁创办的？", "陈远山"),
    ("图书馆有多少藏书？", "十二万册"),
    ("校训是什么？", "勤学笃行"),
    ("校庆日是哪一天？", "校庆日"),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    store = tmp_path_factory.mktemp("index")
    report = build_index(folder, persist_directory=store, embeddings="demo")
    assert len(report.added) == len(DOCUMENTS)
    with Index.open(store) as opened:
        yield opened


def rank(index: Index, question: str, wanted: str) -> int:
    """Return the place of the passage that holds the answer, 1 for the first, 0 when it is not among the first four."""
    passages = index.search(question)
    return next((n for n, p in enumerate(passages, start=1) if wanted in " ".join(p.text.split())), 0)


def test_demo_settings_are_recorded(index: Index) -> None:
    assert index.settings == RagSettings.demo()
    assert index.embeddings_name == "demo"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_right_passage_is_first(index: Index, language: str) -> None:
    ranks = {q: rank(index, q, wanted) for q, wanted in QUESTIONS if q.isascii() == (language == "en")}
    assert [q for q, place in ranks.items() if place == 0] == []
    assert sum(place == 1 for place in ranks.values()) >= 0.85 * len(ranks), ranks


def test_similarity_and_coverage_are_filled(index: Index) -> None:
    best = index.search("Who designed the lighthouse?")[0]
    assert best.similarity is not None
    assert 0.4 < best.similarity <= 1
    assert best.coverage == 1.0
    assert index.search("押金什么时候退还？")[0].similarity is not None
    assert max(p.coverage for p in index.search("Which volcano erupted in Iceland?")) == 0.0


def test_passages_keep_to_the_models_tokens(index: Index, tmp_path: Path) -> None:
    embedder = index.embedder
    assert isinstance(embedder, SentenceTransformerEmbedder)
    stored = index.collection.get(include=["documents", "embeddings"])
    assert max(embedder.count_tokens(text) for text in stored["documents"] or []) <= 48
    vectors = np.asarray(stored["embeddings"])
    assert vectors.shape[1] == 384
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    # The demo model reads 256 tokens, two of them its own marks: longer passages would be cut off unseen.
    assert embedder.max_tokens == 254
    (tmp_path / "long.txt").write_text("The cat sat on the mat. " * 200, encoding="utf-8")
    build_index(
        tmp_path / "long.txt",
        persist_directory=tmp_path / "index",
        embeddings="demo",
        settings=RagSettings(chunk_size=512, chunk_overlap=0),
    )
    with Index.open(tmp_path / "index") as other:
        passages = other.search("cat", k=10)
    assert max(embedder.count_tokens(p.text) for p in passages) <= 254
    embedder.release()
    assert embedder._model is None
