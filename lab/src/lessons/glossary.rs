//! The Korean words for what lessons speak of, and the ones that they are not to be replaced by. One thing has one word, the
//! seed document's own.

/// A word, and others for the same thing.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// In English.
    pub english: &'static str,
    /// In Korean.
    pub korean: &'static str,
    /// What is not written for it.
    pub instead_of: &'static [&'static str],
}

const fn term(english: &'static str, korean: &'static str, instead_of: &'static [&'static str]) -> Term {
    Term { english, korean, instead_of }
}

/// All of them.
pub const TERMS: [Term; 26] = [
    term(
        "network namespace",
        "네트워크 네임스페이스",
        &["네트워크 이름공간", "네트워크 이름 공간", "넷네임스페이스"],
    ),
    term("virtual Ethernet pair (veth)", "가상 이더넷 쌍(veth)", &["가상 이더넷 페어", "가상 이더네트"]),
    term("bridge", "브리지", &["브릿지", "브릿찌"]),
    term("route, routing table", "경로, 라우팅 테이블", &["라우트", "라우팅 표", "루트 테이블"]),
    term("default gateway", "기본 게이트웨이", &["디폴트 게이트웨이", "기본 관문"]),
    term("address translation (NAT, SNAT, DNAT)", "주소 변환(NAT)", &["주소 번역", "네트워크 주소 변경"]),
    term("overlay, encapsulation", "오버레이, 캡슐화", &["오버래이", "캡슐레이션", "인캡슐레이션"]),
    term("service, cluster IP", "서비스, 클러스터 IP", &["써비스", "클러스터 아이피", "클러스터IP"]),
    term("replica, scale out", "복제본, 스케일 아웃", &["레플리카", "리플리카", "스케일아웃"]),
    term("IP address management (IPAM)", "IP 주소 관리(IPAM)", &["아이피 주소", "IP 어드레스"]),
    term("evidence, verdict", "증거, 판정", &["평결", "증빙"]),
    term("drop reason", "폐기(드롭) 사유", &["드랍"]),
    term("packet / frame", "패킷 / 프레임", &["패켓", "후레임"]),
    term("capture", "패킷 캡처", &["캡쳐"]),
    term("hop", "홉", &["호프"]),
    term("time to live (TTL)", "TTL(수명)", &["생존 시간", "생존시간"]),
    term(
        "source / destination address",
        "출발지 / 목적지 주소",
        &["소스 주소", "발신지 주소", "송신지 주소", "도착지 주소"],
    ),
    term("masquerade", "마스커레이드", &["매스커레이드", "마스쿼레이드", "매스쿼레이드"]),
    term("port forwarding", "포트 포워드(포워딩)", &["포트 전달", "포트포워드", "포트포워딩"]),
    term("load balancing", "로드밸런싱(부하 분산)", &["로드 밸런싱", "로드발란싱"]),
    term("label, selector", "라벨(레이블), 셀렉터", &["꼬리표", "선택자", "셀렉타"]),
    term("container runtime (CRI)", "컨테이너 런타임", &["컨테이너 실행기", "콘테이너"]),
    term("fault, break/fix", "장애, 고장 내기/고치기", &["결함"]),
    term("expected / observed", "기대값 / 관측값", &["예상값", "관찰값"]),
    term("cluster", "클러스터", &["클라스터"]),
    term("plugin", "플러그인", &["플러그 인", "플러긴"]),
];

/// The words of a line that stand for something that has another word, each with that one.
pub(super) fn misnamed(line: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = TERMS.iter().flat_map(|term| term.instead_of.iter().map(|wrong| (*wrong, term.korean)));
    all.filter(move |(wrong, _)| line.contains(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_word_for_the_same_thing_is_found_and_no_term_is_one_itself() {
        let found: Vec<_> = misnamed("브릿지와 레플리카").map(|(wrong, _)| wrong).collect();
        assert_eq!(found, ["브릿지", "레플리카"]);
        for term in TERMS {
            assert_eq!(misnamed(term.korean).next(), None, "{}", term.english);
        }
    }
}
