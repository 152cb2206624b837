"""Six frames of a test picture, 64x48, as real encoders write them (ffmpeg: libx264, libx265, mpeg4, flv1).

    path.write_bytes(video("H.265"))

The raw streams have no container, as `rpicam-vid` writes them.
"""

from __future__ import annotations

import base64
import zlib

FRAMES = 6


def video(kind: str) -> bytes:
    """The bytes of a file."""
    return zlib.decompress(base64.b85decode("".join(VIDEOS[kind].split())))


VIDEOS = {
    "H.264": """
c-muNU|>v7Vc=ThqojO;qk(~enE^;}v3Ck{9AE&-WxQ}^o^)aZkd@le#PR>)-YM%O<b^M+le-r$S@~dLtLTEgpW;8ho96w}Oybh9`-1=HWb8fG>F{`3{
Ka`mb-Tk@%@|TOnryBAA8>x*c(XD3b?K$>4Rb8IFCLEg=DMcY{7IhXFFTJ(KNmL6tN)X8(W+tpv3iF1x2?Zyc%1fHFFC_65<9`oF(>!cf9DB5KCVk#61
!U{CVka~t0@~9z9r5UUumqd?vb5C@zD*tB{Qe~meu?3FqP^3qPAmZQ+7qCM@{Yb$qBn0bB9q<^ueUbi>!qTYWE-fbx>fh?OglUEU!*iM>}v_3y7M1Zc6
*1dv`j&ZaKj}F;=B&r}lK=G6~CuUCSJEPoz#iwq%-t=C%%BmMNE5lXh-ptezxozrgmOUSTaLh#Y6hcJx0u@mMYFeeRvT@<(MGAfnnI94BkGgg<&9C{^R
(=_UN4a{ZO7vJg2-8-Yrr8G`fMMCuybUeAd5{PEzD^AQj^&l-U`pJj})|C{_DA2ZqLrNtv$>aZvnA{n_ypnkGugTVBcy}ay~jyw$bkk$wQR94D-
""",
    "H.265": """
c-muNU|@7$<YD~(pD}@fftg_fhyWtFsWUhkfO1ZZjA#-I6q>~%BiH$?XUyOL34n<J2asYH#)HKdI)Mxg#`P=`e_#FobvMYm>*JFTA0KRXYW=?;%IRU{q
-&+WzCCUD|4hZz<LfyMX63i?{~10`Jr#OFY5moXjso?a**2E?ak+<F*Z)Y_ImLMYrW03Ry`Hx9-<uHEW6z)XSG=*F|Ld{D@~7Q_ZTICTuuN}nUvISe-8
9?Mc{K(P|K4Y{|JiErq{UU*YST82D))rCD!=CVk{M^GZ7$tXt-g8R-%W13%jfi6?5{H_?-q5Ff3yGZ#v}994jx>&p;lUA(WZ{3il3_m>KTq_8*iU5TTg
(a#VW!7nsW2J7az?v^#$i?39JwBJF#)XvM2v$W!5eK(mZ$f5$$V>%`eRCv?=a=cxJ;ai{PAK!3@T@<A)jkeiWF#eajA;>it>HIzAQk?~a}H3V!C_kpT)
VCdLbz-Vb>a8vm6a64Ab5TfbRqm(9DS{6W7Xiv8z&JhC<6P*|JYyZ<Z_5Y-P-=2j$hGHnC#7#JU@e2rgpP>tynl<RUG$W?-K+qVC8<1}D81puy*&Y=
""",
    "MTS": """
c-qyMeQXp(6u{^Bv=k%Tk5B_C0|F(az3yJyYkOwnT@el_MF@dJYO>7j&E2ityWQ??+dC`u8e0V=BBp$(SlWUK5dtlLSQQ$Jk;V|BK&-T>DQ%(%BD57F@
gtsZi?RLFKMd*aAG2@Xy!YnK%x~ZBdfm)CR5H2@+0G-BuqBY~&v@F}6x*ydYr-lGCT*cwwIouOt9fzN#l+OQylylPq4r0|b4RvOw6bHynS?bi?<UB7T6
@ZP?!#ylEijw(uCi?w$lZh3*_#lmom*$_`w&9$?l~MvqBaK2?jxoyY1C|kel+J~|I@WLIHu|5SxvXO$Cf<1!yF6U9{TP~HVCt3CK89gU45(TM*rH*1KE
AJ|B1UJQHL`h=U`FMDCV36Ag;B8Dz|LYYHv<H_H0`PV}2^az$!(J$uwYK2g~N=I9P{i9Wo5nm77~rQ)91|{8W)i#I9(;+^E-v7zkt!8DSah6xEQFi0;B
7@ez^duto!X9`;k8tcVpn=VDzfCJ`dXbjq{QJQo|~xI7%De27M|UgZO+5UY9&T%i>-KhN1&aDoPhr6~0aW<(A=1dT+3l;@mS3~5T32;j<LL!+`R=^zzF
i~OPif>;^mSxABSUr-{HcW~JphXX`6AomnO)hi^`w0aPvQWcayK&J+u<G@Bp11~d}tSA*E1RY^Qr_1mlPbgR%(Z=Tyr7$tfT%?FWHJN}B=zVgPMq+}fg
jHfdUxaNkG$KVH1Q=?>v<YY=Om)~WpP<G-mi)W}Wa1~Pxe}k?lZZK!UxM6IH9Ee&8Y%@th7Tk~r4b>hs9^Cxse*e2jX`|gQNaEq3SlY2b1c?H8lhs9!R
NDhJOguUHL8ceT@!_Wmu!w}A}?wI9QMKfnoENYsO>DSG#A9Pb|;9c8F>6oqP(*h1l^!2pN}OK4hz75vxHa#a!;!S7R-}HaX^;tYCzsAT}`Jl7NuT3l{q
Lp9vf<HOmFG>Ss1%}p!AkA<7&@!CUH2_)wA1OS$*)6Bfi?%?j~ljtNWv&UU2|_HTcsITj$PNef4`my7R%2h4#Nnmv1mKbBy)#Pd}A#pW9VGyz!j;<?r!
NdtP0c5ie(Yx|gH{q*L_Qd)e2HHm!Jh|HnJueE)}guQ>9qH?~}IEj)(aeQa)Y{@{qPZu9!3$-lg(7jNye@32Ac1zXVnUjw+CEAh_#cM2LepBy~5?z7Gr
O`dBvP7g0@xLn?Llk&%<jys9lWcNUI=98DYmupq>koV$m3pxt2HqI(6O>x&})_-{AP<cb!*&p`~oES+ylvRGAvvyl=Ykc6oXLwQD1+ApL4C*^$;rh;4x
V}4esMdR0>d?cSchb8gxz59&q|A<qcZuhnrLy;>*AD&hwegJB9vnNm@0;4-wEJgzw{Oqc`ubeScVfk~V`npfnG_2%lVV|J3f}@|n)4qnGyff_q_I}U{6
?9CRC7u6jYLO1Fq3LwW>PK8OwmDL=JXd+ikZpa#Ahx>NhdZ>Fk@>bMv2fF2WHYN%uJevnJG5w%=zc0YMn_g9AnI4GnpCjd0+<W48vIXUpw8xyr)~3ch?
@^{p#ox;e9gcpYLN#+$Vpe(RIf?p|>|YQktl*{~O8H<R}
""",
    "M2TS": """
c-qyMYfKbZ6vt-;v@2K{9!i6O!73O7%gip%wNrOdToknsqm9yZoSnV9JF>eo%nq<f#iiAX*0w%Sv9&%>6QdTvCQ_?JG?f@*tj{W?;gPf!YZa(%t=70bg
H7RMKQxA!4|mU;d+xdad+%@0%)ESN&SZ-T565!)r(&A37#7e3FwIkcR9=K;^qe_v5jnJrkW|KVh@{HjnRPKRvaX<HU7p2+g=1LbxIz7xrU&bN{PwDVI<
Cx}6WkUv=pWS>H>kfK?+*(J&YQhpNlozhz|*I(;J~iek28!+{mCKEwpt2sa!dh+Rfbh5``?XW{?@S+rbQYY8*`ggeA<4cb=a`6N84vtYT&qnlrsy`m<A
><U9R*w?{)uhJQ<A9A%VcI?{n|A+-c8i-kyA$Xn*xVpHH8WMx+p&AR&UvNCz`d2d>lw1-X`#G{U@O7WCN=2OYBnvBHJyGNC6)LyDf%E749_7LBQ?<>lq
NGTw#+7wgdpk|WheNOw+J!f_mu>726L1+juC^Mc1~BskW}ax_Iq$W9vw8?w3tu9&8bq>&_859_M%BAWCWjHHjE41^oePUIuJrB<*q3DH{tL!o6P8%^m*
7z7RB=6%S<C>bdj!APvffoLj&;GB}+W*Hbt5we6_F5U}PmM_c3$zX6LZkhxMtZk*>LA0JqrYOSBdgZ9D%Uz&9f)TyNyr@JzPgEi@g5B;#GM%C)WTylpm
4q%qC}y2-!wmVnF8Ff~IY`1I4bH{!ZdO+G@E#dSE*65oZ*`SQYz4y!ZjqJYo`bEDC6@O<3J8=~CB`nXZsdhcvoc}@*u0I_gU#AlQCW?ZvGS}kla1HTZw
>+dkrEnQXF1{>PT2~UAR-Ur5JZT2?i3+KF{*$$Xni{QkIA@s4^5GTmqQ-JmCAG)Nerq`wpc=5Ck&T3=HF#2{SrrWlAUl{VV{-d!40@|BvGO)iY9d#V2V
oO!C%%#XJmunm61rN5xfY827thsLN1m*xo0})k17E!lvBq1fH10AgITV&)HcM#M_y@&>ttT3=-#(BdT-0G%)o=~`FAs7uC;aHfnCm)w)LixvK?RTu~v>
T)#3@p)-Stnavj7soxgOGRi>oeYd<pl{lj}E>7L~$&X?m-<ara1%?y}M*Hrf`Jng#t#DAu3-SilL5#H81Im*sApg$fa-`Zb0?Y(U$S8Y1@)5G`mhOV`H
FBvBtz&;%x=9}2r$ILC9HzoA9&%D`-Z|jz8^oi>VK!5ro?EkL~RPS_R)wcWTYYUHdo}PQIIk?t*>&~&BscWtj)%PO$5Z`n^aF1QzQ5HAjQfs1A>gu*!d
>q@9p0sduW`2aJI<ES})w-fJ^{0ORxZ_A)XkAj#`R2+cH~0BF9+`XM>(5I$jSCXD3T06LakbX}SnSPRQ2%kY*8lPDndhMXXLzBSZ`@mjy~w$TJ!?X%%s
8fvYZ`jim_M1~vaH@v_ty>i4XM#Fuz&Nnm5x!5j^A9iEM@TrVZ8Oov{466#RPqq)C>GXsFj~AOZYh8CqlLF4`2Lg0DdyJ06)9aUMxTV9WU*`K3sX98HU
&H9N$NQrs@Qudnxb}saAfXKfJIS_=!|2KiVga2Z5ig9l+1A3nPl3;Sl*l5-{zN!XbV%yIDDhY4*SFsJjUKM5&b@{SALV@Drt0ev-`m1mGuIsXu4m8maX
sG;;t~iqLR=xD~)pb!<c7Yw-P!tM&UmJT}`3{70*m|KOU08sI-#t^8;GuKgVNH*N&}ul0`*{)dzQ^=4ebfB1_XntRCX+&TZH{6KYe3OjJ!5+4W;sPsy>
-2Pb2`X|gd7q4dhV-Fq9RkQw?(OXuiS-;`km7CP8KdH}pLe2XB1`LP=-v
""",
    "FLV": """
c-nLG31ehrU|`?`Vg?}whV2Xxz{J3npXZxelIW6HlE?uR;9%fLDJ@DY$;{7Vuzzd}1`Mp_nJFb13=RQMU2GYtnduoN3=SSp0p7CAl+^qbpcz1|sSFMoS
rBo~w4%h^REU@gR4or!ZE}7}YI0@@g9B8Qfju=3Bv!=4z~hrxmS$$GXQ*drV8p<YmYI`UoLL1lp{)X{7UYXVoD7UkP(IK@Eer}0@-v)xPhEW!*r>I?-?
nZ;gYmM~%je|eo&KNxw&&2dDKcp{g02K_lf1;~q@`GGtI4Y=WN<deOE8f8MnTur^w?`lTU1vupL&zHUuAJyhn$YB-irON{?32Z7StuRz9GZFV1k7GjgV
i<6nNR#gqYcXb2VG7G&rjOGT`P`k*y-{+DZ-ubalj?_j31g=`oHHY6)@r_R2t^iAO*|SX^U26NiCA!y&t7AC_B^cffAA-u~*!s(r^UFIL-TSLl9kbxWX
0%^ABrTxto&EQ9v1+7$n2lKLTjPf126)^1n-Q!=Z#_|<j90#>sz$##0Xu048S!8@-xw_hceZ8Az_QF+?5+af;ExIunNpL`>01=qr)Jt+bW)mzIS{#xMt
Ywo#Zr|s)kt8Hatej0U8SL}qVlJ*<+)_=1t?RKXF!;sMz7^++h3@M-hRRRVmkAj5#{y#vDC?`0CPrxK3KoS?<wfBU-W2&_W3d#Z%h%+$iz!a!}6de0`V
bL7%!;5>wHoVw32P6YjCCI=y0jA0Tr0V*eqW%8T^7DXVGC+A52F5Qic^i=Yq3PECjw_juKVkIlP5f2!dBz!#v^oGG+2IE
""",
    "3GP": """
c-muNV30{GsVp!~FEC+XU}6B#nZ^0JKy1Xoz`&7Kl$y%Gz_>d%C9woZZ)Ol+2U6Pvj^9vBIQ;*iM_~P>GrKZm53IRd@-gB_e(IHohPw+JkD2)_<~!5I)
e<<t@0gw14JAn~QI5q5bDQV??%t6S$yz5<cZB1^qJ}3<3GWUcoIm^ibJJ1|FGoWLhUI5g^gC=}t>Kwh4WWBB_q478o8z-M@!*7?0bNF%H;x~<&0?%*wN
NBQc=HqkYc>a#LutnoPB7kQ<7{qL`~(u;&%ki}?4t8memxhQ)N`_p{o<NbGd?B#2xtB-#ufuj<NNm`^*(wm+;nu&66X&$;sjIqCj91fJ*bfV!K5j$!b|
Hy&3;u?<(wzkE1VWJF>35kUU9eOishn(ysgh3STi{(2{OnyUFY8XkUivkccFmWwm&m2NdH_T-m*B*qwB+mjeF*H`<nGU28C7N<LCE*9=iv0&^-`8=rEj
r;z!NHuD=KTt?NM&!3c$id#^m$Co5ATR`6oq9I#{vLf7ec4`RJ9ANTD)Zx50QMQA&uS2j;_0_%4H)|zbpdBu|Lz$pEeo1b3>jLMwcvWyf46u|rfC?CPV
$N)kJz=)~}o$tVa7cc=)Q%O-`Hjo`tk`1<#8PhbNy$ty6!D=svFaUE^Qd3HbfwW9&PH_oB2h?1!UdCU!DVd2thC*%%y5BW`Sb`z+2$-Xrk&;sclPSwgN
kvu}2IS{^B<7{$q=M8iF3ru%O9L`Q%5uSmB0Ezh1tKStQk0s8<PDzEq8tSXn=!SxBq;~TzFJ&ToPwn0Xl{W?8IGU;dE9`(14w(|RDlj8{{IJ(@u|fr#o
)+pXlU>QYGVP?4hn)`Azol`imhM;is%7N+yHXj)=puF;fx9lM|wLLLYY|DM4W-#O+JZb$!5lShI)nuMr=SWjKG*?5GY72E`T}*ge8hgz_9{zA{zq(3y3
WO^enPC2+IJ)lF`K2ptKH9t_sOBKygN6kbOWb3B<BMECq^Lh}p^cNapAO0Eg!xF8
""",
}
