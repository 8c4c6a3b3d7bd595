"""What recognizers trained on subtitles write down when nobody speaks: whole utterances, by language."""

from __future__ import annotations

PHANTOM_PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        r"thanks?( you)?( so much| very much)? for (watching|listening|viewing)( this video| the video)?"
        r"( and)?( i'll)?( see you)?( in the| in)?( next)?( time| video| one)?",
        r"(please )?(like and |like share and |don't forget to )?subscribe( to (my|our|the) channel)?",
        r"(subtitles|subtitled|captions|captioned|transcription|transcribed|translated) by .{0,60}",
        r"(the )?amara org community",
    ),
    "zh": (
        r"(非常)?(谢谢|謝謝|感谢|感謝)(大家|您|你)?的?(观看|觀看|收看|收听|收聽)",
        r"(请|請)(不吝)?(点赞|點讚)?(订阅|訂閱).{0,20}",
        r"(中文)?字幕(由|by|志愿者|志願者|制作|製作|提供).{0,20}",
    ),
    "yue": (r"多謝(大家)?(收睇|觀看|收看)",),
    "ja": (
        r"(最後まで)?ご(視聴|覧)(いただき)?ありがとうございま(した|す)",
        r"(チャンネル登録|高評価).{0,10}お願いし?ます",
    ),
    "ko": (r"(끝까지)?시청해주셔서감사합니다", r"구독과?좋아요.{0,12}", r"자막(제공|제작)?by.{0,20}"),
    "de": (r"untertitel(ung)? (des zdf|der amara|im auftrag|von|aufgrund).{0,60}", r"(vielen )?danke? fürs zuschauen"),
    "fr": (
        r"sous ?titr(es|age) (réalisés? |faits? |par |de la communauté |st).{0,60}",
        r"merci d'avoir regardé( cette vidéo)?", r"abonnez vous( à la chaîne)?",
    ),
    "es": (
        r"subtítulos (realizados |creados )?por .{0,60}", r"gracias por ver( el v[ií]deo)?",
        r"suscríbete( al canal)?",
    ),
    "pt": (r"legendas? (pela|por|feitas?) .{0,60}", r"obrigad[oa] por assistir(em)?"),
    "it": (r"sottotitoli (creati |a cura |e revisione )?.{0,60}amara org", r"grazie per aver guardato( il video)?"),
    "nl": (r"ondertitel(d|ing) door .{0,60}", r"bedankt voor het kijken"),
    "ru": (
        r"субтитры (создавал|делал|сделал|подогнал|предоставил).{0,40}", r"спасибо за просмотр", r"продолжение следует",
        r"редактор субтитров .{0,60}",
    ),
    "tr": (r"izlediğiniz için teşekkür(ler| ederim| ederiz)", r"altyazı m ?k"),
    "pl": (r"napisy (stworzone|wykonane) przez .{0,60}", r"dziękuję za (oglądanie|uwagę)"),
}  # fmt: skip
"""Patterns of whole utterances, in lower case, without punctuation, words apart by one space; languages that are
written without spaces have none. Someone may really say so; whoever needs those words keeps the flagged segments."""
