import java.io.OutputStream;
import java.math.BigInteger;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.Security;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Date;
import org.bouncycastle.asn1.ASN1Encodable;
import org.bouncycastle.asn1.ASN1Sequence;
import org.bouncycastle.asn1.cmp.CMPObjectIdentifiers;
import org.bouncycastle.asn1.cmp.CertRepMessage;
import org.bouncycastle.asn1.cmp.CertResponse;
import org.bouncycastle.asn1.cmp.ErrorMsgContent;
import org.bouncycastle.asn1.cmp.GenMsgContent;
import org.bouncycastle.asn1.cmp.GenRepContent;
import org.bouncycastle.asn1.cmp.InfoTypeAndValue;
import org.bouncycastle.asn1.cmp.PBMParameter;
import org.bouncycastle.asn1.cmp.PKIBody;
import org.bouncycastle.asn1.cmp.PKIFailureInfo;
import org.bouncycastle.asn1.cmp.PKIHeader;
import org.bouncycastle.asn1.cmp.PKIStatus;
import org.bouncycastle.asn1.cmp.PKIStatusInfo;
import org.bouncycastle.asn1.cmp.RevReqContent;
import org.bouncycastle.asn1.cmp.RevRepContent;
import org.bouncycastle.asn1.cms.ContentInfo;
import org.bouncycastle.asn1.cms.CMSObjectIdentifiers;
import org.bouncycastle.asn1.crmf.CertReqMessages;
import org.bouncycastle.asn1.crmf.CertReqMsg;
import org.bouncycastle.asn1.crmf.SubsequentMessage;
import org.bouncycastle.asn1.nist.NISTObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PBMAC1Params;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.asn1.x509.SubjectKeyIdentifier;
import org.bouncycastle.asn1.x509.SubjectPublicKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.cmp.CertificateConfirmationContentBuilder;
import org.bouncycastle.cert.cmp.GeneralPKIMessage;
import org.bouncycastle.cert.cmp.ProtectedPKIMessage;
import org.bouncycastle.cert.cmp.ProtectedPKIMessageBuilder;
import org.bouncycastle.cert.cmp.RevocationDetailsBuilder;
import org.bouncycastle.cert.crmf.CertificateRequestMessageBuilder;
import org.bouncycastle.cert.crmf.PKMACBuilder;
import org.bouncycastle.cert.crmf.jcajce.JcePKMACValuesCalculator;
import org.bouncycastle.cms.CMSEnvelopedData;
import org.bouncycastle.cms.CMSSignedData;
import org.bouncycastle.cms.RecipientInformation;
import org.bouncycastle.cms.SignerInformation;
import org.bouncycastle.cms.jcajce.JceKeyTransEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JcePasswordEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.GenericKey;
import org.bouncycastle.operator.MacCalculator;
import org.bouncycastle.operator.PBEMacCalculatorProvider;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.bouncycastle.pkcs.jcajce.JcePBMac1CalculatorBuilder;
import org.bouncycastle.pkcs.jcajce.JcePBMac1CalculatorProviderBuilder;

/**
 * Drives Bouncy Castle's CMP classes by one command a run: ir, cr, kur, rr, genm, keygen; a device is a folder with `own.crt` and
 * `own.key`, DER.
 *
 * <p>Every answer is verified. Prints SUCCESS, or FAILURE with what the server says.
 */
public final class CmpDriver {
    private static final String REFERENCE = System.getProperty("ref");
    private static final char[] SECRET = System.getProperty("secret", "").toCharArray();
    private static final boolean PBMAC1 = Boolean.getBoolean("pbmac1");
    private static final String PROOF = System.getProperty("proof", "signature");
    private static final String ALGORITHM = System.getProperty("algorithm", "EC");
    private static final int VERSION = Integer.getInteger("pvno", PKIHeader.CMP_2000);
    private static final SecureRandom RANDOM = new SecureRandom();

    private final URI server;
    private final Path device;
    private final byte[] transaction = random();
    private byte[] nonce;
    private byte[] theirNonce;
    private X509CertificateHolder signer;

    private CmpDriver(URI server, Path device) {
        this.server = server;
        this.device = device;
    }

    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        try {
            new CmpDriver(URI.create(args[1]), Path.of(args[2])).run(args[0], args.length > 3 ? args[3] : "");
            System.out.println("SUCCESS");
        } catch (Refused refused) {
            System.out.println("FAILURE " + refused.getMessage());
        }
    }

    private void run(String command, String subject) throws Exception {
        switch (command) {
            case "ir" -> enroll(PKIBody.TYPE_INIT_REQ, subject);
            case "cr" -> enroll(PKIBody.TYPE_CERT_REQ, subject);
            case "kur" -> enroll(PKIBody.TYPE_KEY_UPDATE_REQ, subject);
            case "keygen" -> generate(subject);
            case "rr" -> revoke();
            case "genm" -> ask();
            default -> throw new IllegalArgumentException(command);
        }
    }

    private void enroll(int type, String subject) throws Exception {
        KeyPair pair = newPair();
        CertReqMsg asked = request(pair, subject);
        PKIBody answer = send(new PKIBody(type, new CertReqMessages(asked)));
        CertResponse response = response(answer);
        X509CertificateHolder certificate = certificate(response, pair.getPrivate());
        SubjectPublicKeyInfo key = SubjectPublicKeyInfo.getInstance(pair.getPublic().getEncoded());
        check(certificate.getSubjectPublicKeyInfo().equals(key), "the certificate is for another key");
        confirm(certificate);
        keep(certificate, pair.getPrivate().getEncoded());
    }

    private CertReqMsg request(KeyPair pair, String subject) throws Exception {
        CertificateRequestMessageBuilder builder = new CertificateRequestMessageBuilder(BigInteger.ZERO);
        builder.setPublicKey(SubjectPublicKeyInfo.getInstance(pair.getPublic().getEncoded()));
        if (PROOF.equals("mac")) {
            GeneralName name = new GeneralName(GeneralName.dNSName, subject);
            builder.addExtension(Extension.subjectAlternativeName, false, new GeneralNames(name));
            builder.setAuthInfoPKMAC(passwordBased(), SECRET);
        } else {
            builder.setSubject(new X500Name(subject));
        }
        if (PROOF.equals("encrypted")) {
            builder.setProofOfPossessionSubsequentMessage(SubsequentMessage.encrCert);
        } else {
            builder.setProofOfPossessionSigningKeySigner(signer(pair.getPrivate()));
        }
        return builder.build().toASN1Structure();
    }

    @SuppressWarnings("unchecked")
    private void generate(String subject) throws Exception {
        CertificateRequestMessageBuilder builder = new CertificateRequestMessageBuilder(BigInteger.ZERO);
        builder.setSubject(new X500Name(subject));
        CertReqMsg asked = builder.build().toASN1Structure();
        CertResponse response = response(send(new PKIBody(PKIBody.TYPE_INIT_REQ, new CertReqMessages(asked))));
        X509CertificateHolder certificate = certificate(response, null);
        byte[] signed = open(response.getCertifiedKeyPair().getPrivateKey().getValue(), null);
        ContentInfo info = new ContentInfo(CMSObjectIdentifiers.signedData, ASN1Sequence.getInstance(signed));
        CMSSignedData data = new CMSSignedData(info);
        String type = data.getSignedContent().getContentType().getId();
        check(type.equals("2.16.840.1.101.2.1.2.78.5"), "not an AsymmetricKeyPackage");
        SignerInformation by = data.getSignerInfos().getSigners().iterator().next();
        var authority = (X509CertificateHolder) data.getCertificates().getMatches(by.getSID()).iterator().next();
        check(by.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider("BC").build(authority)), "the key is not signed");
        ASN1Sequence keys = ASN1Sequence.getInstance((byte[]) data.getSignedContent().getContent());
        PrivateKeyInfo key = PrivateKeyInfo.getInstance(keys.getObjectAt(0));
        check(key.getPublicKeyData().equals(certificate.getSubjectPublicKeyInfo().getPublicKeyData()), "another key");
        confirm(certificate);
        keep(certificate, new PrivateKeyInfo(key.getPrivateKeyAlgorithm(), key.parsePrivateKey()).getEncoded());
    }

    private byte[] open(ASN1Encodable enveloped, PrivateKey key) throws Exception {
        CMSEnvelopedData data = new CMSEnvelopedData(new ContentInfo(CMSObjectIdentifiers.envelopedData, enveloped));
        RecipientInformation recipient = data.getRecipientInfos().getRecipients().iterator().next();
        if (key == null) {
            return recipient.getContent(new JcePasswordEnvelopedRecipient(SECRET).setProvider("BC"));
        }
        return recipient.getContent(new JceKeyTransEnvelopedRecipient(key).setProvider("BC"));
    }

    private void revoke() throws Exception {
        X509CertificateHolder own = new X509CertificateHolder(Files.readAllBytes(device.resolve("own.crt")));
        RevocationDetailsBuilder details = new RevocationDetailsBuilder();
        details.setIssuer(own.getIssuer()).setSerialNumber(own.getSerialNumber());
        RevReqContent asked = new RevReqContent(details.build().toASN1Structure());
        PKIBody answer = send(new PKIBody(PKIBody.TYPE_REVOCATION_REQ, asked));
        accepted(RevRepContent.getInstance(answer.getContent()).getStatus()[0]);
    }

    private void ask() throws Exception {
        GenMsgContent asked = new GenMsgContent(new InfoTypeAndValue(CMPObjectIdentifiers.id_it_caCerts));
        PKIBody answer = send(new PKIBody(PKIBody.TYPE_GEN_MSG, asked));
        InfoTypeAndValue told = GenRepContent.getInstance(answer.getContent()).toInfoTypeAndValueArray()[0];
        check(ASN1Sequence.getInstance(told.getInfoValue()).size() == 2, "not two CA certificates");
    }

    private void confirm(X509CertificateHolder certificate) throws Exception {
        CertificateConfirmationContentBuilder content = new CertificateConfirmationContentBuilder();
        content.addAcceptedCertificate(certificate, BigInteger.ZERO);
        var built = content.build(new JcaDigestCalculatorProviderBuilder().build());
        PKIBody answer = send(new PKIBody(PKIBody.TYPE_CERT_CONFIRM, built.toASN1Structure()));
        check(answer.getType() == PKIBody.TYPE_CONFIRM, "no pkiconf");
    }

    private CertResponse response(PKIBody answer) throws Exception {
        CertResponse response = CertRepMessage.getInstance(answer.getContent()).getResponse()[0];
        accepted(response.getStatus());
        return response;
    }

    private X509CertificateHolder certificate(CertResponse response, PrivateKey key) throws Exception {
        var held = response.getCertifiedKeyPair().getCertOrEncCert();
        if (!PROOF.equals("encrypted")) {
            return new X509CertificateHolder(held.getCertificate().getX509v3PKCert());
        }
        check(held.getCertificate() == null, "the certificate is not encrypted");
        return new X509CertificateHolder(open(held.getEncryptedCert().getValue(), key));
    }

    private void keep(X509CertificateHolder certificate, byte[] key) throws Exception {
        Files.write(device.resolve("own.crt"), certificate.getEncoded());
        Files.write(device.resolve("own.key"), key);
    }

    private PKIBody send(PKIBody body) throws Exception {
        nonce = random();
        HttpRequest request =
                HttpRequest.newBuilder(server)
                        .header("Content-Type", "application/pkixcmp")
                        .POST(HttpRequest.BodyPublishers.ofByteArray(build(body).toASN1Structure().getEncoded()))
                        .build();
        HttpResponse<byte[]> reply = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofByteArray());
        check(reply.statusCode() == 200, "HTTP status " + reply.statusCode());
        GeneralPKIMessage general = new GeneralPKIMessage(reply.body());
        check(general.hasProtection(), "the answer is not protected");
        ProtectedPKIMessage answer = new ProtectedPKIMessage(general);
        verify(answer);
        PKIHeader header = answer.getHeader();
        check(Arrays.equals(header.getTransactionID().getOctets(), transaction), "another transaction");
        check(Arrays.equals(header.getRecipNonce().getOctets(), nonce), "another nonce");
        theirNonce = header.getSenderNonce().getOctets();
        if (answer.getBody().getType() == PKIBody.TYPE_ERROR) {
            accepted(ErrorMsgContent.getInstance(answer.getBody().getContent()).getPKIStatusInfo());
        }
        return answer.getBody();
    }

    private ProtectedPKIMessage build(PKIBody body) throws Exception {
        boolean secret = REFERENCE != null;
        X509CertificateHolder own = secret ? null : new X509CertificateHolder(Files.readAllBytes(device.resolve("own.crt")));
        X500Name name = secret ? new X500Name("CN=" + REFERENCE) : own.getSubject();
        GeneralName recipient = new GeneralName(new X500Name("CN=gateway"));
        ProtectedPKIMessageBuilder builder = new ProtectedPKIMessageBuilder(VERSION, new GeneralName(name), recipient);
        builder.setTransactionID(transaction).setSenderNonce(nonce).setMessageTime(new Date()).setBody(body);
        if (theirNonce != null) {
            builder.setRecipNonce(theirNonce);
        }
        if (secret) {
            return builder.setSenderKID(REFERENCE.getBytes(StandardCharsets.UTF_8)).build(mac());
        }
        builder.setSenderKID(SubjectKeyIdentifier.fromExtensions(own.getExtensions()).getKeyIdentifier()).addCMPCertificate(own);
        return builder.build(signer(ownKey()));
    }

    private void verify(ProtectedPKIMessage answer) throws Exception {
        boolean pbmac1 = answer.getHeader().getProtectionAlg().getAlgorithm().equals(PKCSObjectIdentifiers.id_PBMAC1);
        if (REFERENCE != null && (pbmac1 || answer.hasPasswordBasedMacProtection())) {
            PBEMacCalculatorProvider macs = passwordBased();
            if (pbmac1) {
                macs = new JcePBMac1CalculatorProviderBuilder().setProvider("BC").build();
            }
            check(answer.verify(macs, SECRET), "the MAC is wrong");
            return;
        }
        signer = answer.getCertificates()[0];
        check(answer.verify(new JcaContentVerifierProviderBuilder().setProvider("BC").build(signer)), "the signature is wrong");
    }

    private static MacCalculator mac() throws Exception {
        if (PBMAC1) {
            var builder = new JcePBMac1CalculatorBuilder("HmacSHA256", 256).setIterationCount(5000).setProvider("BC");
            return new Named(builder.build(SECRET));
        }
        return passwordBased().build(SECRET);
    }

    private static PKMACBuilder passwordBased() throws Exception {
        byte[] salt = random();
        AlgorithmIdentifier digest = new AlgorithmIdentifier(NISTObjectIdentifiers.id_sha256);
        AlgorithmIdentifier mac = new AlgorithmIdentifier(PKCSObjectIdentifiers.id_hmacWithSHA256);
        PBMParameter parameters = new PBMParameter(salt, digest, 1000, mac);
        return new PKMACBuilder(new JcePKMACValuesCalculator().setProvider("BC")).setParameters(parameters);
    }

    private PrivateKey ownKey() throws Exception {
        byte[] encoded = Files.readAllBytes(device.resolve("own.key"));
        return KeyFactory.getInstance(ALGORITHM, "BC").generatePrivate(new PKCS8EncodedKeySpec(encoded));
    }

    private static ContentSigner signer(PrivateKey key) throws Exception {
        String algorithm = ALGORITHM.equals("EC") ? "SHA256withECDSA" : "SHA256withRSA";
        return new JcaContentSignerBuilder(algorithm).setProvider("BC").build(key);
    }

    private static KeyPair newPair() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance(ALGORITHM, "BC");
        generator.initialize(ALGORITHM.equals("EC") ? 256 : 2048);
        return generator.generateKeyPair();
    }

    private static byte[] random() {
        byte[] made = new byte[16];
        RANDOM.nextBytes(made);
        return made;
    }

    private static void accepted(PKIStatusInfo status) throws Refused {
        int said = status.getStatus().intValue();
        if (said == PKIStatus.GRANTED || said == PKIStatus.GRANTED_WITH_MODS) {
            return;
        }
        var text = status.getStatusString() == null ? "" : status.getStatusString().getStringAtUTF8(0).getString();
        int bits = status.getFailInfo() == null ? 0 : new PKIFailureInfo(status.getFailInfo()).intValue();
        throw new Refused(said + " " + Integer.toHexString(bits) + " " + text);
    }

    private static void check(boolean good, String problem) {
        if (!good) {
            throw new IllegalStateException(problem);
        }
    }

    /** A PBMAC1 calculator that says PBKDF2: 1.72 derives by it and says PBES2 (RFC 8018 A.5). */
    private record Named(MacCalculator inner) implements MacCalculator {
        @Override
        public AlgorithmIdentifier getAlgorithmIdentifier() {
            PBMAC1Params said = PBMAC1Params.getInstance(inner.getAlgorithmIdentifier().getParameters());
            ASN1Encodable derivation = said.getKeyDerivationFunc().getParameters();
            var function = new AlgorithmIdentifier(PKCSObjectIdentifiers.id_PBKDF2, derivation);
            var named = new PBMAC1Params(function, said.getMessageAuthScheme());
            return new AlgorithmIdentifier(PKCSObjectIdentifiers.id_PBMAC1, named);
        }

        @Override
        public OutputStream getOutputStream() {
            return inner.getOutputStream();
        }

        @Override
        public byte[] getMac() {
            return inner.getMac();
        }

        @Override
        public GenericKey getKey() {
            return inner.getKey();
        }
    }

    /** What the server refuses. */
    private static final class Refused extends Exception {
        private static final long serialVersionUID = 1L;

        Refused(String text) {
            super(text);
        }
    }
}
